"""The studio's page: its fields, and which of them go to which work."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from eval.app import costs, markup
from eval.app.jobs import Job
from eval.app.settings import MOST_CLIPS, MOST_GUIDANCE, MOST_STEPS, Settings
from eval.app.studio import Shown, Studio
from eval.app.videos import MOST_FRAMES
from eval.cost.flags import DEFAULT_SIZE, DIT_SIZES
from vidtwin_gen.records import CostRow

# the system's fonts: nothing is loaded from other machines
LOOK: dict[str, Any] = {
    "theme": gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    "css": markup.STYLE,
}
UPLOADS_LAST = 3600  # seconds
HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
VISITORS = 8  # whose work waits for its turn
Fields = Sequence[gr.components.Component]
Answer = Iterator[tuple[Any, Any]]  # what is said, and what is shown
# Not gr.skip(), after which gradio keeps each gallery of a visitor in a block of its own, for ever.
NOTHING = ""


def make_page(studio: Studio) -> gr.Blocks:
    with gr.Blocks(
        title="vidtwin-gen studio", analytics_enabled=False, delete_cache=(60, UPLOADS_LAST)
    ) as page:
        gr.Markdown(
            f"# vidtwin-gen studio\nPipeline **{Path(studio.pipeline).name}**: {len(studio.class_names)} "
            f"classes, clips of {' × '.join(map(str, studio.clip_size))} (frames, height, width)."
        )
        with gr.Tabs(overflow_behavior="wrap"):
            with gr.Tab("Generate"):
                settings = generate_tab(studio)
            with gr.Tab("Structure and Dynamics"):
                parts_tab(studio, settings)
            with gr.Tab("Cost"):
                cost_tab()
    return page


def generate_tab(studio: Studio) -> Fields:
    """Returns the fields of `Settings`, in its order."""
    internal = studio.has_internal_guidance
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            label = class_field(studio, "Class")
            steps = gr.Slider(1, MOST_STEPS, 25, step=1, label="Steps")
            guidance = gr.Slider(
                1, MOST_GUIDANCE, 2, step=0.1, label="Classifier-free guidance", info="1: none"
            )
            seed = gr.Number(0, label="Seed")
            number = gr.Slider(1, MOST_CLIPS, 4, step=1, label="Number of clips")
            with gr.Accordion("More settings", open=False):
                start, stop_at = (
                    gr.Slider(
                        0, 1, value, step=0.05, label=f"Guidance {word}", info="a fraction of the steps"
                    )
                    for word, value in (("from", 0), ("until", 1))
                )
                internal_guidance = gr.Slider(
                    1,
                    MOST_GUIDANCE,
                    1,
                    step=0.1,
                    label="Internal guidance",
                    info="1: none" if internal else "not here: the model was trained without its head",
                    interactive=internal,
                )
                scheduler = gr.Dropdown(
                    [(name.removesuffix("Scheduler"), name) for name in studio.schedulers], label="Scheduler"
                )
        with gr.Column(scale=3, min_width=320):
            with gr.Row():
                run, stop = gr.Button("Generate", variant="primary"), stop_button()
            fields = output_fields()
    settings = [steps, guidance, start, stop_at, internal_guidance, scheduler, seed, number]

    def generated(label: int, *values: Any) -> Answer:
        return answer(studio.generate(label, Settings(*values)))

    when_clicked(run, stop, generated, [label, *settings], fields)
    return settings


def parts_tab(studio: Studio, settings: Fields) -> None:
    gr.Markdown(
        f"A video is cut and scaled to {studio.clip_size[2]}×{studio.clip_size[1]}; its first {MOST_FRAMES} "
        "frames are used. Steps, guidance, seed and number of clips are those of the tab *Generate*."
    )
    with gr.Row():
        a, b = (gr.File(label=f"Video {name}", height=140) for name in ("A", "B"))
        stride = gr.Number(1, label="Take every n-th frame")
    with gr.Row():
        apart, swap = gr.Button("Take A apart", variant="primary"), gr.Button("Re-enact A and B")
    with gr.Row(equal_height=True):
        keep = gr.Radio(
            [("Structure", "structure"), ("Dynamics", "dynamics")], value="structure", label="Keep of A"
        )
        label = class_field(studio, "and generate the rest as")
        edit = gr.Button("Generate the other part")
    with gr.Row(equal_height=True):
        first, second = class_field(studio, "Mix a clip of"), class_field(studio, "with one of", 1)
        mix = gr.Button("Mix two generated clips")
    stop = stop_button()
    fields = output_fields()

    def edited(file: str, stride: int, keep: str, label: int, *values: Any) -> Answer:
        return answer(studio.edit(file, stride, keep, label, Settings(*values)))

    def mixed(first: int, second: int, *values: Any) -> Answer:
        return answer(studio.mix(first, second, Settings(*values)))

    when_clicked(apart, stop, lambda *values: answer(studio.take_apart(*values)), [a, stride], fields)
    when_clicked(swap, stop, lambda *values: answer(studio.reenact(*values)), [a, b, stride], fields)
    when_clicked(edit, stop, edited, [a, stride, keep, label, *settings], fields)
    when_clicked(mix, stop, mixed, [first, second, *settings], fields)


def cost_tab() -> None:
    sizes = costs.clip_sizes()
    with gr.Row():
        size = gr.Dropdown(list(DIT_SIZES), value=DEFAULT_SIZE, label="Size of the DiT")
        clip = gr.Dropdown(list(sizes), label="Clip: frames × height × width", min_width=220)
        patch = gr.Dropdown(list(costs.PATCHES), label="Patch")
    with gr.Row():
        run, stop = gr.Button("Count", variant="primary"), stop_button()

    def count(size: str, clip: str, patch: int) -> Answer:
        if None in (size, clip, patch):
            raise ValueError("choose a size of the DiT, a clip and a patch")
        rows: list[CostRow] = []
        for number, name in enumerate(sizes[clip]):
            yield markup.state((number, len(sizes[clip])), "tokenizer"), markup.costs(rows)
            rows.append(costs.cost_row(name, size, patch))
        counted = f"{len(rows)} tokenizers counted: batch 1; bars are logarithmic"
        yield markup.said(counted), markup.costs(rows)

    when_clicked(run, stop, count, [size, clip, patch], output_fields())


def class_field(studio: Studio, title: str, number: int = 0) -> gr.Dropdown:
    """Its value is the class's id."""
    names = studio.class_names
    return gr.Dropdown(names, value=names[number % len(names)], type="index", label=title, min_width=220)


def output_fields() -> Fields:
    """For what is said, and for what is shown."""
    return [gr.HTML(), gr.HTML()]


def stop_button() -> gr.State:
    """A per-session list that each click on Stop appends to. Under gradio's own cancellation a last progress
    message could arrive after "stopped"."""
    clicks = gr.State([])
    gr.Button("Stop").click(lambda clicks: clicks.append(1), clicks, queue=False, **HIDDEN)
    return clicks


def when_clicked(
    button: gr.Button,
    stop: gr.State,
    work: Callable[..., Answer],
    inputs: list[Any],
    outputs: Fields,
) -> None:
    """Work from a click until it is done, fails, or another click stops it."""

    def answers(clicks: list[int], *values: Any) -> Answer:
        clicks.clear()
        try:
            for answer in work(*values):
                if clicks:
                    yield markup.said("stopped"), NOTHING
                    return
                yield answer
        except ValueError as error:
            yield markup.said(str(error), "alert"), NOTHING
        except Exception:
            traceback.print_exc()  # for whoever runs the studio
            yield markup.said("this failed, and not by your doing; try other values", "alert"), NOTHING

    button.click(answers, [stop, *inputs], outputs, concurrency_limit=VISITORS, **HIDDEN)


def answer(job: Job[Shown]) -> Answer:
    """A job's steps, and its clips in the end."""
    start = time.monotonic()
    yield markup.state((0, 1)), NOTHING  # reading a video comes before the first step
    with closing(job):
        while True:
            try:
                yield markup.state(next(job)), NOTHING
            except StopIteration as end:
                clips, text = end.value
                break
    shown = markup.gallery(clips)
    count = "1 clip" if len(clips) == 1 else f"{len(clips)} clips"
    yield markup.said(f"{count}, {time.monotonic() - start:.1f} s. {text}"), shown
