"""What was measured of an autoencoder: its reconstructions, and what each part of its latent holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypedDict

from vidtwin_gen.records.fvd import Distance, kvd_text
from vidtwin_gen.records.result import Result


class _Quality(TypedDict):
    mean: float
    ci95: float | None
    num_clips: int


# Of clips: the mean over them, half of its 95 % interval (None of one clip), and more.
Quality = Annotated[dict[str, Any], _Quality]


# of what is decoded of our latents, by its name in records; another class's have the first alone
PART_TITLES = {"both": "reconstruction", "structure": "Structure alone", "dynamics": "Dynamics alone"}


@dataclass(frozen=True, kw_only=True)
class AutoencoderResult(Result):
    """What results of an autoencoder on real clips share: how they were measured.

    split, fold: of a data set; `videos` in their place are the files that were named.
    source_sizes: "height x width" of the files, and how many clips came from files of that size.
    lpips: whether it was `measured`, with which weights, or the `reason` why not.
    rfvd: FVD and KVD of reconstructions, None where they were not asked for.
    dtype: of the autoencoder's weights and arithmetic; None: float32.
    """

    optional: ClassVar[tuple[str, ...]] = ("fold", "videos", "rfvd", "dtype")

    split: str | None
    fold: int | None = None
    videos: list[str] | None = None
    autoencoder_class: str
    vae_sha256: str
    resolution: str
    frame_rate: str
    seed: int
    latent: str
    data_range: str
    psnr_at_most: float
    interval: str
    resize: str
    source_sizes: dict[str, int]
    skipped_videos: list[str]
    lpips: dict[str, Any]
    rfvd: Distance | None = None
    dtype: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReconResult(AutoencoderResult):
    """both: the reconstruction; structure, dynamics: each part alone, of our latents. Each has `psnr`, `ssim`
    and `lpips` with `mean`, `ci95`, `num_clips` and `per_frame`.

    ssim_windows: those that SSIM is the mean of; None: around every pixel, with mirrored borders.
    """

    kind: ClassVar[str] = "recon"
    written_by: ClassVar[str] = "python -m eval recon"
    optional: ClassVar[tuple[str, ...]] = (
        *AutoencoderResult.optional,
        "structure",
        "dynamics",
        "ssim_windows",
    )

    both: dict[str, Quality]
    structure: dict[str, Quality] | None = None
    dynamics: dict[str, Quality] | None = None
    ssim_windows: str | None = None


@dataclass(frozen=True, kw_only=True)
class DiagnoseResult(AutoencoderResult):
    """Whether a latent is fit to be generated.

    tfvd: as `rfvd` with interior steps in time replaced by midpoints. channels: by grid. noise: `psnr` by
    `level`. swap: `distances` of clips with a part of another's latent.
    """

    kind: ClassVar[str] = "diagnose"
    written_by: ClassVar[str] = "python -m eval diagnose"
    optional: ClassVar[tuple[str, ...]] = (*AutoencoderResult.optional, "tfvd")

    num_clips: int
    layout: list[dict[str, Any]]
    reconstruction_psnr: dict[str, Any]
    midpoints_psnr: dict[str, Any]
    tfvd: Distance | None = None
    tfvd_minus_rfvd: float | None = None
    channels: dict[str, dict[str, Any]]
    dead_below_nats: float
    noise: list[dict[str, Any]]
    swap: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        value = super().to_json()
        if self.tfvd is None:
            del value["tfvd_minus_rfvd"]
        return value

    def in_words(self) -> dict[str, str]:
        """What was found, for people: the name of a number, and the number."""
        words = {
            "clips": f"{self.num_clips}, {self.split or 'no'} split, {self.resolution}, {self.frame_rate}",
            "PSNR": _decibels(self.reconstruction_psnr),
            "PSNR with midpoints in time": _decibels(self.midpoints_psnr),
        }
        for name, distance in (("rFVD", self.rfvd), ("tFVD", self.tfvd)):
            if distance is not None and distance["fvd"] is not None:
                flag = ", rank-deficient" if distance["rank_deficient"] else ""
                words[name] = f"{distance['fvd']:.1f}{flag}"
                if distance.get("kvd") is not None:
                    words[name.replace("FVD", "KVD")] = kvd_text(distance["kvd"])
            elif distance is not None:
                words[name] = f"not measured: {distance['reason']}"
        if self.tfvd_minus_rfvd is not None:
            words["tFVD less rFVD"] = f"{self.tfvd_minus_rfvd:.1f}"
        for name, grid in self.channels.items():
            words[f"{name}: dead channels"] = f"{sum(grid['dead'])} of {len(grid['dead'])}"
            words[f"{name}: KL"] = f"{grid['kl_per_clip']:.0f} nats a clip"
        for row in self.noise:
            name = f"PSNR with noise of {row['level']:g} standard deviations on the latent"
            words[name] = _decibels(row["psnr"])
        for name, sources in (self.swap["distances"] or {}).items():
            own, partner = (sources[side]["psnr"]["mean"] for side in ("own", "partner"))
            words[f"{name} taken from another clip"] = (
                f"PSNR {own:.2f} dB to the clip, {partner:.2f} dB to the other"
            )
        if self.swap["distances"] is None:
            words["parts taken from another clip"] = f"not measured: {self.swap['reason']}"
        return words


def _decibels(summary: dict[str, Any]) -> str:
    interval = f" ± {summary['ci95']:.2f} (95 %)" if summary["ci95"] is not None else ""
    return f"{summary['mean']:.2f}{interval} dB"
