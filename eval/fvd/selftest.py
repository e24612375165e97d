"""python -m eval selftest: whether the metrics give here the numbers that they must give anywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file

from autoencoder.losses.perceptual import LPIPS_WEIGHTS, load_lpips
from eval.fvd.distance import FeatureSet, distance_of_sums, frechet_distance
from eval.fvd.features import FeatureExtractor
from eval.fvd.flags import GOLDEN_KEYS, SELFTEST_PARTS, SelftestFlags
from eval.fvd.i3d import load_i3d
from vidtwin_gen.devices import find_device
from vidtwin_gen.records import SelftestResult
from vidtwin_gen.weights import MissingWeightsError

# `i3d_black`, `i3d_white`: what the original network gives for 16 black and 16 white frames. `i3d_drawn`,
# `lpips_drawn`: what ours give for `drawn_clip` and `drawn_pair`, written down once they had given the
# originals' numbers for real clips.
PINNED = Path(__file__).with_name("selftest.safetensors")
I3D_TOLERANCE = 1e-3
LPIPS_TOLERANCE = 1e-4
# The squared distance between the logits of 30 black and of 30 white frames, the known self-test of FVD: of
# sets of such videos it is the whole distance, as the covariances vanish. TensorFlow's original: 151.39244.
BLACK_WHITE = 151.392
BLACK_WHITE_TOLERANCE = 0.01

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Check:
    """`passed`: None where it could not be made; `detail` has the number, its limit, or the reason."""

    name: str
    passed: bool | None
    detail: str

    @property
    def verdict(self) -> str:
        return {True: "pass", False: "FAIL", None: "skip"}[self.passed]


def drawn_clip(num_frames: int = 10, height: int = 96, width: int = 128) -> torch.Tensor:
    """(1, F, H, W, 3) uint8, in whole numbers: stripes that move, at another speed in each colour."""
    f, h, w, c = torch.meshgrid(*map(torch.arange, (num_frames, height, width, 3)), indexing="ij")
    return ((h * (f + 3) + w * (c + 2) + 5 * f * f) % 256).to(torch.uint8)[None]


def drawn_pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Two frames (2, 3, 64, 64) of the drawn clip in [-1, 1], and their averages over blocks of 4 x 4."""
    frames = rearrange(drawn_clip(2, 64, 64)[0], "f h w c -> f c h w") / 127.5 - 1
    return frames, _coarse(frames)


def i3d_checks(
    extractor: FeatureExtractor, golden: Mapping[str, torch.Tensor] | None = None
) -> Iterator[Check]:
    """Of the I3D that FVD is defined with, on clips that need no file and on the real ones of `golden`:
    `clip_uint8` (N, 3, F, H, W), `i3d_logits` (N, 400)."""
    pinned = load_file(PINNED)
    for name, value in (("black", 0), ("white", 255)):
        logits = extractor(_constant(value, 16))
        yield _near(f"I3D, 16 {name} frames", logits, pinned[f"i3d_{name}"][None], I3D_TOLERANCE)
    black, white = (extractor(_constant(value, 30)).cpu().double() for value in (0, 255))
    distance = (black - white).square().sum().item()
    yield Check(
        "I3D, 30 black against 30 white frames",
        abs(distance - BLACK_WHITE) <= BLACK_WHITE_TOLERANCE,
        f"distance {distance:.5f}, expected {BLACK_WHITE} +- {BLACK_WHITE_TOLERANCE:g}",
    )
    yield _near("I3D, a drawn clip", extractor(drawn_clip()), pinned["i3d_drawn"][None], I3D_TOLERANCE)
    if golden is not None:
        clips = rearrange(golden["clip_uint8"], "n c f h w -> n f h w c")
        yield _near("I3D, real clips", extractor(clips), golden["i3d_logits"], I3D_TOLERANCE)


@torch.inference_mode()
def lpips_checks(
    lpips: Distance, device: str = "cpu", golden: Mapping[str, torch.Tensor] | None = None
) -> Iterator[Check]:
    """Of LPIPS on drawn frames, and on real ones of `golden`: `clip_uint8` as above, `lpips_vgg` (4,)."""
    first, second = (x.to(device) for x in drawn_pair())
    expected = load_file(PINNED)["lpips_drawn"]
    yield _near("LPIPS, drawn frames", lpips(first, second), expected, LPIPS_TOLERANCE)
    yield _near("LPIPS, equal frames", lpips(first, first), torch.zeros(len(first)), 1e-6)
    if golden is not None:
        frames = (rearrange(golden["clip_uint8"][0, :, :4], "c f h w -> f c h w") / 127.5 - 1).to(device)
        distances = lpips(frames, _coarse(frames))
        yield _near("LPIPS, real frames", distances, golden["lpips_vgg"], LPIPS_TOLERANCE)


def frechet_checks() -> Iterator[Check]:
    """Of the distance itself: Gaussians whose covariances share their axes have a closed form, and a set is
    at no distance from itself, in another order and with fewer samples than dimensions too."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(64, 64, generator=generator, dtype=torch.float64)).Q
    a, b, mu1, mu2 = torch.rand(4, 64, generator=generator, dtype=torch.float64)
    value = frechet_distance(mu1, (axes * a) @ axes.T, mu2, (axes * b) @ axes.T)
    closed_form = (mu1 - mu2).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    yield _near("Fréchet distance, Gaussians against the closed form", value, closed_form, 1e-9)
    for count in (100, 1000):
        features = torch.randn(count, 400, generator=generator) * 5
        parts = [FeatureSet.of(part) for part in features.flip(0).split(30)]
        total, outer = sum(part.total for part in parts), sum(part.outer for part in parts)
        again = FeatureSet(torch.as_tensor(total), torch.as_tensor(outer), count)
        distance = torch.tensor(distance_of_sums(FeatureSet.of(features), again))
        name = f"Fréchet distance, {count} features of 400 numbers against themselves"
        yield _near(name, distance, torch.zeros(()), 1e-4)


def _constant(value: int, num_frames: int) -> torch.Tensor:
    return torch.full((1, num_frames, 8, 8, 3), value, dtype=torch.uint8)


def _coarse(frames: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) averaged over 4 x 4 pixels and enlarged again."""
    return F.interpolate(F.avg_pool2d(frames, 4), scale_factor=4, mode="nearest")


def _near(name: str, found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> Check:
    if found.shape != expected.shape:
        return Check(name, False, f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    error = (found.cpu().double() - expected.double()).abs().max().item()
    # a NaN is at no distance from anything
    return Check(name, error <= tolerance, f"off by {error:.1e}, at most {tolerance:g}")


def run_selftest(flags: SelftestFlags) -> None:
    """Prints a line a check, and ends with status 1 if one failed. `passed` in the JSON is true only where
    all checks could be made and passed, and null where none failed and some were left out."""
    golden = load_file(flags.golden) if flags.golden else None
    if golden is not None and (missing := sorted(GOLDEN_KEYS - set(golden))):
        named = f"--golden {flags.golden} lacks {', '.join(missing)}"
        raise ValueError(f"{named}; leave it out, or name the right file")
    weights: dict[str, str] = {}
    device = str(find_device(flags.device))

    def check_i3d() -> Iterator[Check]:
        extractor = load_i3d(flags.weights, device, flags.weights_sha256)
        weights[extractor.name] = extractor.weights_sha256
        yield from i3d_checks(extractor, golden)

    def check_lpips() -> Iterator[Check]:
        lpips = load_lpips(flags.lpips_weights, device, flags.lpips_weights_sha256)
        found = LPIPS_WEIGHTS.verified(flags.lpips_weights, flags.lpips_weights_sha256)
        weights["lpips-vgg"] = found.sha256
        yield from lpips_checks(lpips, device, golden)

    parts = {"frechet": frechet_checks, "i3d": check_i3d, "lpips": check_lpips}
    checks: list[Check] = []
    for part in SELFTEST_PARTS:
        if part in flags.only:
            checks += _make(part, parts[part])
    counts = {word: sum(check.verdict == word for check in checks) for word in ("pass", "FAIL", "skip")}
    unknown = ": what was left out is not known to be right" if counts["skip"] else ""
    print(f"{counts['pass']} passed, {counts['FAIL']} failed, {counts['skip']} left out{unknown}")
    if flags.out:
        SelftestResult(
            passed=False if counts["FAIL"] else None if counts["skip"] else True,
            checks=[{"name": c.name, "passed": c.passed, "detail": c.detail} for c in checks],
            weights_sha256=weights,
            device=device,
            torch=torch.__version__,
        ).write(flags.out)
    if counts["FAIL"]:
        sys.exit(1)


def _make(part: str, checks: Callable[[], Iterator[Check]]) -> list[Check]:
    """Each printed as soon as it is made. Weights that are absent are no failure, refused ones are."""
    made: list[Check] = []

    def report(check: Check) -> None:
        print(f"{check.verdict}  {check.name}: {check.detail}", flush=True)
        made.append(check)

    try:
        for check in checks():
            report(check)
    except ValueError as error:
        passed = None if isinstance(error, MissingWeightsError) else False
        report(Check(f"{part}: weights", passed, str(error)))
    return made
