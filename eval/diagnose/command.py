"""python -m eval diagnose: is the latent of an autoencoder fit to be generated, before one is trained?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from eval.diagnose.channel_statistics import DEAD_BELOW, channel_statistics, posterior_moments
from eval.diagnose.figures import plot_channels, plot_swaps
from eval.diagnose.flags import DiagnoseFlags
from eval.diagnose.latent_edits import num_interior_steps, swaps, with_midpoints, with_noise
from eval.recon.shared import Subject
from vidtwin_gen.data.pixels import to_uint8
from vidtwin_gen.devices import processes
from vidtwin_gen.quality import lpips_per_frame, psnr, psnr_per_frame, summarize
from vidtwin_gen.records import DiagnoseResult, not_measured

NOISE_LEVELS = (0.1, 0.2, 0.5)
PAIRS_SHOWN = 3
UNSWAPPED = "nothing"


@torch.no_grad()
def diagnose(flags: DiagnoseFlags) -> None:
    subject = Subject.of_flags(flags, ", --no-fvd")
    autoencoder, extractor = subject.autoencoder, subject.extractor
    layout = autoencoder.layout

    def measure(frames: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = autoencoder.pixels(frames)
        posterior = autoencoder.encode(pixels)
        z = posterior.mode()
        decoded = [autoencoder.decode(latents) for latents in (z, with_midpoints(z, layout))]
        values = {"moments": posterior_moments(posterior, layout).flatten(1)}
        values |= {f"psnr {i}": psnr(clips, pixels)[:, None] for i, clips in enumerate(decoded)}
        if extractor is not None:
            values["real"] = extractor(frames)
            values |= {f"features {i}": extractor(to_uint8(clips).cpu()) for i, clips in enumerate(decoded)}
        return values

    sizes = {"moments": 5 * layout.num_channels, "psnr 0": 1, "psnr 1": 1}
    if extractor is not None:
        sizes |= dict.fromkeys(("real", "features 0", "features 1"), extractor.dim)
    draws, values = subject.measure_each_once(sizes, measure, measured="diagnose")
    if not processes().is_main_process:
        return
    statistics = channel_statistics(values["moments"].mean(0).view(5, -1), layout)
    std = torch.cat([grid.std for grid in statistics.values()]).float()
    pairs = draws[: 2 * flags.num_pairs]
    frames = subject.read(pairs)  # (P, F, H, W, C)
    latents = torch.cat(
        [autoencoder.encode(autoencoder.pixels(part)).mode().cpu() for part in frames.split(flags.batch_size)]
    )  # (P, L)
    swap, shown = swapped(subject, frames, latents)
    result = DiagnoseResult(
        **subject.conditions(values["origin"]),
        num_clips=len(draws),
        layout=layout.to_config(),
        reconstruction_psnr=summarize(values["psnr 0"][:, 0]),
        midpoints_psnr=summarize(values["psnr 1"][:, 0]),
        **(temporal_distances(subject, values) if flags.fvd else {}),
        channels={name: grid.to_json() for name, grid in statistics.items()},
        dead_below_nats=DEAD_BELOW,
        noise=noisy(subject, frames, latents, std),
        swap=swap,
    )
    if flags.figure:
        plot_channels(statistics, f"{result.autoencoder_class}, N = {result.num_clips}", flags.figure)
        if shown:
            plot_swaps(shown, flags.figure.with_stem(f"{flags.figure.stem}_swap"))
    result.write(flags.out)
    for name, found in result.in_words().items():
        print(f"{name}: {found}")
    if result.skipped_videos:
        print(f"skipped {len(result.skipped_videos)} videos, listed in the record")


def temporal_distances(subject: Subject, values: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """`rfvd`, `tfvd` and their difference. Both are of the same clips: what tFVD has beyond rFVD is what the
    midpoints cost."""
    rfvd, tfvd = (subject.distance(values, f"features {i}") for i in range(2))
    steps = num_interior_steps(subject.autoencoder.layout)
    if not any(steps.values()):
        tfvd = not_measured("no grid of the latent has three steps in time")
    tfvd |= {
        "source": "V-RAE, arXiv 2608.13556: each interior step in time is the midpoint of its neighbours",
        "interior_steps": steps,
        "kept": [name for name, count in steps.items() if count == 0],
    }
    difference = None if None in (rfvd["fvd"], tfvd["fvd"]) else tfvd["fvd"] - rfvd["fvd"]
    return {"rfvd": rfvd, "tfvd": tfvd, "tfvd_minus_rfvd": difference}


def noisy(
    subject: Subject, frames: torch.Tensor, latents: torch.Tensor, std: torch.Tensor
) -> list[dict[str, Any]]:
    """How PSNR falls with noise on the latents (P, L) of frames (P, F, H, W, C), in units of each channel's
    standard deviation: the error that a generator may make."""
    autoencoder, generator = subject.autoencoder, torch.Generator().manual_seed(subject.flags.seed)
    rows = []
    for level in (0.0, *NOISE_LEVELS):
        values = []
        for here in torch.arange(len(latents)).split(subject.flags.batch_size):
            z = with_noise(latents[here], autoencoder.layout, std, level, generator)
            values.append(psnr(autoencoder.decode(z), autoencoder.pixels(frames[here])).cpu())
        rows.append({"level": level, "psnr": summarize(torch.cat(values))})
    return rows


def swapped(
    subject: Subject, frames: torch.Tensor, latents: torch.Tensor
) -> tuple[dict[str, Any], list[tuple[str, torch.Tensor]]]:
    """How far clips decoded with a part of another's latent are from either, and rows of the first pairs, to
    be looked at. A pair is two neighbours; both ways round would only measure every mixture twice."""
    autoencoder, network, batch_size = subject.autoencoder, subject.network, subject.flags.batch_size
    num_pairs, layout = len(frames) // 2, autoencoder.layout
    if num_pairs == 0:
        return {"distances": None, "reason": "a swap needs two clips"}, []
    frames = frames[: 2 * num_pairs].unflatten(0, (-1, 2))  # (P, 2, F, H, W, C)
    latents = latents[: 2 * num_pairs].unflatten(0, (-1, 2))  # (P, 2, L)
    if not swaps(latents[:, 0], latents[:, 1], layout):
        return {"distances": None, "reason": "one grid of one step in time has no part to swap"}, []
    values: dict[tuple[str, str, str], list[torch.Tensor]] = defaultdict(list)
    shown: dict[str, list[torch.Tensor]] = {}
    for pairs, z in zip(frames.split(batch_size), latents.split(batch_size), strict=True):
        for name, mixed in {UNSWAPPED: z[:, 0], **swaps(z[:, 0], z[:, 1], layout)}.items():
            clips = autoencoder.decode(mixed)
            for source, original in zip(("own", "partner"), pairs.unbind(1), strict=True):
                pixels = autoencoder.pixels(original)
                values[name, source, "psnr"].append(psnr_per_frame(clips, pixels).cpu())
                if network is not None:
                    values[name, source, "lpips"].append(lpips_per_frame(clips, pixels, network).cpu())
            if name != UNSWAPPED and len(shown.get(name, ())) < PAIRS_SHOWN:
                shown.setdefault(name, []).extend(clips.cpu())
    distances: dict[str, dict[str, dict[str, Any]]] = {}
    for (name, source, metric), parts in values.items():
        distances.setdefault(name, {}).setdefault(source, {})[metric] = summarize(torch.cat(parts))
    record = {
        "num_pairs": num_pairs,
        "protocol": "a clip's latent with one part of its partner's, decoded, compared with own and partner",
        "distances": distances,
    }
    rows: list[tuple[str, torch.Tensor]] = []
    for i, pair in enumerate(frames[:PAIRS_SHOWN]):
        first, second = autoencoder.pixels(pair).cpu()
        rows += [(f"pair {i + 1}: A", first), ("B", second)]
        rows += [(f"A with {name} of B", clips[i]) for name, clips in shown.items()]
    return record, rows
