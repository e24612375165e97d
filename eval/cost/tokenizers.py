"""Published latent geometries, each with its source, as layouts that the cost counters and the DiT take."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from eval.cost.geometry import Tokenizer, Unpublished
from vidtwin_gen.latents import LatentGrid, LatentLayout

CLIP = (16, 224, 224)
APPENDIX_C = "arXiv 2412.17726, appendix C.1"  # VidTwin's paper, on the others


def vidtwin(setting: int | str = 1) -> Tokenizer:
    """VidTwin at 16 x 224 x 224: setting 1, 2 or 3 of the paper (arXiv 2412.17726, Table 8), or "released",
    the published checkpoint, whose Structure has 8 channels instead of 4."""
    geometries = {
        # Structure n_q, h_S, w_S, d_S; Dynamics h_D, w_D, d_D
        "1": ((16, 7, 7, 4), (7, 7, 8)),
        "2": ((16, 7, 7, 4), (4, 4, 16)),
        "3": ((12, 7, 7, 4), (7, 7, 8)),
        "released": ((16, 7, 7, 8), (7, 7, 8)),
    }
    if str(setting) not in geometries:
        raise ValueError(f"VidTwin's settings are {', '.join(geometries)}; got {setting!r}")
    (queries, h_s, w_s, d_s), (h_d, w_d, d_d) = geometries[str(setting)]
    layout = LatentLayout(
        (
            LatentGrid("structure", ("query", "height", "width"), (queries, h_s, w_s), d_s),
            *_two_projections("dynamics", h_d, w_d, d_d),
        )
    )
    released, printed = str(setting) == "released", str(setting) == "1"
    return Tokenizer(
        name="VidTwin (released checkpoint)" if released else f"VidTwin (setting {setting})",
        layout=layout,
        clip_shape=CLIP,
        source="microsoft/VidTok, configs/vidtwin" if released else "arXiv 2412.17726, Table 8",
        printed_rate=0.0020 if printed else None,
        verdict="reproduced" if printed else None,
        remark="8 channels of Structure, where the paper's setting 1 has 4" if released else None,
    )


def magvit_v2(num_frames: int = 16, height: int = 224, width: int = 224) -> Tokenizer:
    """MAGVIT-v2 as VidTwin's paper counts it (arXiv 2412.17726, appendix C.1): one position for 4 x 8 x 8
    pixels, 5 channels; 4 x 28 x 28 positions at 16 x 224 x 224. Other clip sizes scale by the same factors.
    Of 4k + 1 frames the first has a position of its own, k + 1 in all, as Open-MAGVIT2 has it.

    Raises:
        ValueError: a clip that the factors do not divide.
    """
    causal = num_frames % 4 == 1
    if num_frames % 4 > 1 or height % 8 or width % 8:
        raise ValueError(
            f"MAGVIT-v2 divides a clip by 4 x 8 x 8, one more frame allowed; {num_frames} x {height} x "
            f"{width} is no such clip: compare at a size that is"
        )
    scaled = (num_frames, height, width) != CLIP
    return Tokenizer(
        name="MAGVIT-v2 (factors scaled to this clip)" if scaled else "MAGVIT-v2 (as VidTwin counts it)",
        layout=_video(5, num_frames // 4 + causal, height // 8, width // 8),
        clip_shape=(num_frames, height, width),
        source=f"{APPENDIX_C}: 4 x 8 x 8 pixels a position, 5 channels"
        + ("; 4k + 1 frames as k + 1 positions: TencentARC/SEED-Voken" if causal else ""),
        codebook_size=2**18,
        printed_rate=None if scaled else 0.0065,
        verdict=None if scaled else "reproduced, with the paper's 5 channels; the code itself has 18 bits",
        remark="the first frame is a position of its own, as in Open-MAGVIT2" if causal else None,
    )


def find(names: Sequence[str]) -> list[Tokenizer]:
    """The tokenizers of these names in `TOKENIZERS`; `["all"]` is all of them that can be counted.

    Raises:
        ValueError: a name that is not there, or a tokenizer that has no fixed geometry.
    """
    if list(names) == ["all"]:
        return [entry for entry in TOKENIZERS.values() if isinstance(entry, Tokenizer)]
    found = []
    for name in names:
        entry = TOKENIZERS.get(name)
        if isinstance(entry, Unpublished):
            raise ValueError(
                f"tokenizer {name!r} cannot be counted: it has {entry.missing} ({entry.source}); leave it out"
            )
        if entry is None:
            near = difflib.get_close_matches(name, TOKENIZERS, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise ValueError(f"no tokenizer {name!r}; {hint}There are all, {', '.join(TOKENIZERS)}")
        found.append(entry)
    return found


def unpublished() -> list[Unpublished]:
    return [entry for entry in TOKENIZERS.values() if isinstance(entry, Unpublished)]


def _video(channels: int, frames: int, height: int, width: int) -> LatentLayout:
    axes = ("time", "height", "width")
    return LatentLayout((LatentGrid("video", axes, (frames, height, width), channels),))


def _two_projections(name: str, height: int, width: int, channels: int) -> tuple[LatentGrid, LatentGrid]:
    """16 frames seen from above and from the side."""
    return (
        LatentGrid(f"{name}_x", ("time", "width"), (16, width), channels),
        LatentGrid(f"{name}_y", ("time", "height"), (16, height), channels),
    )


_MOTION = _two_projections("motion", 14, 14, 32)

TOKENIZERS: dict[str, Tokenizer | Unpublished] = {
    "vidtwin-1": vidtwin(1),
    "vidtwin-2": vidtwin(2),
    "vidtwin-3": vidtwin(3),
    "vidtwin-released": vidtwin("released"),
    "magvit-v2": magvit_v2(),
    "open-magvit2": Tokenizer(
        "Open-MAGVIT2",
        _video(18, 5, 28, 28),
        CLIP,
        "TencentARC/SEED-Voken, configs of the video tokenizer",
        codebook_size=2**18,
        frames_taken=17,
        remark="each of the 18 bits counted as a number",
    ),
    "emu3": Tokenizer(
        "EMU-3",
        _video(4, 4, 28, 28),
        CLIP,
        "BAAI/Emu3-VisionTokenizer, config.json",
        codebook_size=32_768,
        printed_rate=0.0053,
        verdict="not reached: 4 / (3 x 4 x 8 x 8) is 0.521 %",
    ),
    "cv-vae": Tokenizer(
        "CV-VAE",
        _video(4, 4, 28, 28),
        CLIP,
        APPENDIX_C,
        printed_rate=0.0053,
        verdict="not reached: 4 / (3 x 4 x 8 x 8) is 0.521 %",
    ),
    "ivideogpt": Tokenizer(
        "iVideoGPT",
        LatentLayout(
            (
                LatentGrid("context", ("time", "height", "width"), (2, 16, 16), 64),
                LatentGrid("dynamics", ("time", "height", "width"), (14, 4, 4), 64),
            )
        ),
        (16, 256, 256),
        f"thuml/iVideoGPT, configs, and {APPENDIX_C}",
        codebook_size=8_192,
        printed_rate=0.0150,
        verdict="reproduced, at its own 256 x 256",
        remark="2 frames of context and 14 that depend on them, a codebook of 8,192 for each kind",
    ),
    "cmd": Tokenizer(
        "CMD (content frame in pixels)",
        LatentLayout((LatentGrid("content", ("height", "width"), (224, 224), 3), *_MOTION)),
        CLIP,
        APPENDIX_C,
        printed_rate=0.0685,
        verdict="6.845 % with a 14 x 14 grid and 32 channels; the example that the paper prints gives 15.8 %",
    ),
    "cmd-sd": Tokenizer(
        "CMD (content frame by SD's VAE)",
        LatentLayout((LatentGrid("content", ("height", "width"), (28, 28), 4), *_MOTION)),
        CLIP,
        "arXiv 2403.14148, whose content frame is a latent; motion as in the paper's Table 1",
    ),
    "tats": Tokenizer(
        "TATS",
        _video(256, 4, 28, 28),
        CLIP,
        "songweige/TATS; its own clips are 16 x 128 x 128",
        codebook_size=16_384,
        remark="elements are those of the code vectors, 256 each; a generator of its codes has none",
    ),
    "video-lavit": Unpublished(
        "Video-LaVIT",
        "arXiv 2402.03161; jy0205/LaVIT, VideoLaVIT/models/modeling_motion_tokenizer.py",
        "no fixed number of tokens for a clip: 3 x 5 x 9 codes of 1,024 for the motion of 24 frames, and "
        "visual tokens of key frames, whose number depends on the video",
    ),
    "vidtok-4x8x8-c4": Tokenizer(
        "VidTok KL 4x8x8, 4 channels",
        _video(4, 4, 28, 28),
        CLIP,
        "microsoft/VidTok, configs/vidtok_kl_noncausal_488_4chn.yaml",
    ),
    "vidtok-4x8x8-c16": Tokenizer(
        "VidTok KL 4x8x8, 16 channels, causal",
        _video(16, 5, 28, 28),
        CLIP,
        "microsoft/VidTok, configs/vidtok_kl_causal_488_16chn.yaml",
        frames_taken=17,
    ),
    "vidtok-4x16x16-c4": Tokenizer(
        "VidTok KL 4x16x16, 4 channels",
        _video(4, 4, 14, 14),
        CLIP,
        "microsoft/VidTok, configs/vidtok_kl_noncausal_41616_4chn.yaml",
    ),
    "vidtok-4x16x16-c16": Tokenizer(
        "VidTok KL 4x16x16, 16 channels",
        _video(16, 4, 14, 14),
        CLIP,
        "microsoft/VidTok, configs/vidtok_kl_noncausal_41616_16chn.yaml",
    ),
    **{
        f"cosmos-{factors}": Tokenizer(
            f"Cosmos CV {factors}",
            _video(16, *shape),
            CLIP,
            "NVIDIA/Cosmos-Tokenizer, README",
            frames_taken=17,
        )
        for factors, shape in {
            "4x8x8": (5, 28, 28),
            "8x8x8": (3, 28, 28),
            "8x16x16": (3, 14, 14),
        }.items()
    },
    "larp": Tokenizer(
        "LARP",
        LatentLayout((LatentGrid("codes", ("query",), (1_024,), 16),)),
        (16, 128, 128),
        "hywang66/LARP and arXiv 2410.21264",
        codebook_size=8_192,
        remark="codes in a sequence without a grid: a patch of 2 joins pairs of neighbours",
    ),
    "sd-vae": Tokenizer(
        "SD-VAE of each frame (Latte)",
        _video(4, 16, 28, 28),
        CLIP,
        "Vchitect/Latte, whose own patch is 1 x 2 x 2",
    ),
    "dc-ae": Tokenizer("DC-AE f32c32 of each frame (FAR)", _video(32, 16, 7, 7), CLIP, "showlab/FAR"),
}
