"""docs/api.md: all of the public classes stands there, as it is in the code, and its examples run."""

import inspect
import re
from pathlib import Path

import pytest

import vidtwin_gen
from tests.pipelines.test_pipeline import build_pipeline

PAGE = (Path(__file__).parents[1] / "docs/api.md").read_text(encoding="utf-8")
OURS = {"vidtwin_gen", "autoencoder", "pipelines"}
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def sections(text, level):
    """What stands under each heading of this level, by the heading."""
    _, *parts = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)
    return {name.strip("`"): body for name, body in zip(parts[::2], parts[1::2], strict=True)}


def public_members(public_class):
    """Name: member, of the class and of those of its bases that are ours."""
    bases = [base for base in public_class.__mro__ if base.__module__.split(".")[0] in OURS]
    members = {name: member for base in reversed(bases) for name, member in vars(base).items()}
    return {
        name: inspect.unwrap(getattr(public_class, name)) if not isinstance(member, property) else member
        for name, member in members.items()
        if (isinstance(member, (property, classmethod)) or inspect.isfunction(member))
        and (name == "__call__" or not name.startswith("_"))
    }


def as_told(function):
    """Each parameter as the page has it: its name, and its default where it has one."""
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in ("self", "cls") and parameter.kind not in VARIADIC:
            required = parameter.default is parameter.empty
            yield f"`{name}`" if required else f"`{name}={parameter.default!r}`"


def missing_from(page, class_name):
    """What the section of a class should have and has not."""
    body = sections(page, 2).get(class_name, "")
    of_methods = sections(body, 3)
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", of_methods.get("For subclasses", ""), re.MULTILINE))
    public_class = getattr(vidtwin_gen, class_name)
    told = {"Constructor": public_class} | public_members(public_class)
    for name, member in told.items():
        if isinstance(member, property):
            missing = [] if f"`{name}`" in body else [f"`{name}`"]
        else:
            text = of_methods.get(name, rows.get(name, body if name == "Constructor" else None))
            missing = [name] if text is None else [word for word in as_told(member) if word not in text]
        yield from (f"{class_name}, {name}: {word}" for word in missing)


@pytest.mark.parametrize("class_name", vidtwin_gen.__all__)
def test_all_that_is_public_stands_there(class_name):
    assert list(missing_from(PAGE, class_name)) == []


@pytest.mark.parametrize("class_name", vidtwin_gen.__all__)
def test_nothing_stands_there_that_is_not(class_name):
    headings = set(sections(sections(PAGE, 2)[class_name], 3)) - {"Constructor", "For subclasses"}
    assert headings <= public_members(getattr(vidtwin_gen, class_name)).keys()


def test_what_is_missing_is_found():
    for told, name in (
        ("`sample_posterior=False`", "AutoencoderVidTwin, forward: `sample_posterior=False`"),
        ("### `mix`", "VidTwinPipeline, mix: mix"),
        ("`guidance_scale=4.0`", "VidTwinPipeline, __call__: `guidance_scale=4.0`"),
        ("`num_steps`", "VidTwinPipeline, denoise: `num_steps`"),
        ("`null_class`", "LatentTransformer, null_class: `null_class`"),
    ):
        assert told in PAGE
        assert name in list(missing_from(PAGE.replace(told, ""), name.split(",")[0]))


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_pipeline().save_pretrained("path/to/pipeline")
    names = {}  # they go on from one another
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/api.md", "exec"), names)
    config, layout = names["config"], names["layout"]
    assert names["video"].shape == names["clips"].shape
    assert names["velocity"].shape == (2, layout.num_elements)
    assert names["mixed"].shape == (1, config.num_frames, config.height, config.width, 3)
    assert len(names["frames"]) == 2 and len(names["moved"][0]) == config.num_frames
    assert Path("first_frame.png").stat().st_size
