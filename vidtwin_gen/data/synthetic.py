"""The embedded data set: eight classes of drawn motion, written as real video files in UCF-101's layout.

Each class is one thing that moves in one way; colours, sizes, places, speeds, phases, directions and
backgrounds vary from clip to clip. The clips of a group share their colours and background, as the clips of
a UCF-101 group share their scene, and the split lists keep groups apart exactly as the official ones do.
"""

from __future__ import annotations

import colorsys
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from vidtwin_gen.data.writing import write_video
from vidtwin_gen.files import new_folder, write_text

FPS = 25.0
HEIGHT, WIDTH = 48, 64
NUM_GROUPS = 25
NUM_TEST_GROUPS = 7  # per fold, as in UCF-101: groups 1 to 7, 8 to 14, 15 to 21

# A class draws from (x, y, t, rng): pixel coordinates (1, H, W) with y down and half the height as the unit,
# time in seconds (F, 1, 1). It returns the signed distance to what it shows, (F, H, W), negative inside.
Shape = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _disc(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return np.hypot(x, y) - radius


def _box(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _rotate(x: np.ndarray, y: np.ndarray, angle: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _triangle_wave(phase: np.ndarray) -> np.ndarray:
    """Period 1, between -1 and 1, constant speed."""
    return 4 * np.abs((phase % 1.0) - 0.5) - 1


def bouncing_ball(x: np.ndarray, y: np.ndarray, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    radius = rng.uniform(0.3, 0.42)
    bounce = np.abs(np.sin(np.pi * (rng.uniform(1.0, 1.5) * t + rng.uniform())))
    centre = rng.uniform(-0.5, 0.5) + rng.choice([-1, 1]) * rng.uniform(0.0, 0.15) * t
    return _disc(x - centre, y - (0.92 - radius - rng.uniform(0.8, 1.1) * bounce), radius)


def sliding_door(x: np.ndarray, y: np.ndarray, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    half = rng.uniform(0.3, 0.42)
    centre = (0.95 - half) * _triangle_wave(rng.uniform(0.5, 0.8) * t + rng.uniform())
    return np.abs(x - centre) - half + 0 * y  # as high as the frame


def spinning_bar(x: np.ndarray, y: np.ndarray, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = rng.choice([-1, 1]) * 2 * np.pi * rng.uniform(0.3, 0.6) * t + rng.uniform(0, np.pi)
    u, v = _rotate(x - rng.uniform(-0.15, 0.15), y - rng.uniform(-0.15, 0.15), angle)
    return _box(u, v, rng.uniform(0.75, 0.95), rng.uniform(0.22, 0.3))


def pulsing_ring(x: np.ndarray, y: np.ndarray, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    radius = 0.55 + 0.2 * np.sin(2 * np.pi * (rng.uniform(0.7, 1.0) * t + rng.uniform()))
    distance = np.hypot(x - rng.uniform(-0.2, 0.2), y - rng.uniform(-0.2, 0.2))
    return np.abs(distance - radius) - rng.uniform(0.14, 0.19)


def orbiting_moon(x: np.ndarray, y: np.ndarray, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = 2 * np.pi * (rng.choice([-1, 1]) * rng.uniform(0.5, 0.9) * t + rng.uniform())
    x, y = x - rng.uniform(-0.15, 0.15), y - rng.uniform(-0.15, 0.15)
    planet = _disc(x, y, rng.uniform(0.2, 0.26))
    orbit = rng.uniform(0.6, 0.66)
    return np.minimum(
        planet, _disc(x - orbit * np.cos(angle), y - orbit * np.sin(angle), rng.uniform(0.3, 0.36))
    )


def swinging_pendulum(x: np.ndarray, y: np.ndarray, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0.45, 0.7) * np.sin(2 * np.pi * (rng.uniform(0.7, 1.1) * t + rng.uniform()))
    length = rng.uniform(1.2, 1.45)
    u, v = _rotate(x - rng.uniform(-0.2, 0.2), y + 0.98, -angle)
    return np.minimum(
        _box(u, v - length / 2, 0.12, length / 2), _disc(u, v - length, rng.uniform(0.34, 0.42))
    )


def climbing_triangle(x: np.ndarray, y: np.ndarray, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    half = rng.uniform(0.42, 0.56)
    centre = 1.2 - (rng.uniform(1.0, 1.7) * t + rng.uniform(0, 2.4)) % 2.4  # leaves at the top, returns below
    u, v = np.abs(x - rng.uniform(-0.4, 0.4)), y - centre
    return np.maximum(v - half, (2 * u - v - half) / 5**0.5)


def scrolling_stripes(x: np.ndarray, y: np.ndarray, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    period, tilt = rng.uniform(0.9, 1.2), rng.uniform(-0.35, 0.35)
    u, _ = _rotate(y, x, tilt)
    wave = np.sin(2 * np.pi * (u / period + rng.choice([-1, 1]) * rng.uniform(0.5, 0.9) * t + rng.uniform()))
    return 0.06 * wave  # flatter than a distance: the edges are soft


CLASSES: dict[str, Shape] = {
    "BouncingBall": bouncing_ball,
    "ClimbingTriangle": climbing_triangle,
    "OrbitingMoon": orbiting_moon,
    "PulsingRing": pulsing_ring,
    "ScrollingStripes": scrolling_stripes,
    "SlidingDoor": sliding_door,
    "SpinningBar": spinning_bar,
    "SwingingPendulum": swinging_pendulum,
}


def draw_clip(class_name: str, num_frames: int, scene_seed: list[int], clip_seed: list[int]) -> np.ndarray:
    """One clip, uint8 (F, HEIGHT, WIDTH, 3).

    `scene_seed` decides colours and background, `clip_seed` everything that moves; both are entropy for
    numpy's SeedSequence, so neighbouring seeds give independent clips.
    """
    scene, rng = np.random.default_rng(scene_seed), np.random.default_rng(clip_seed)
    x = ((np.arange(WIDTH) + 0.5 - WIDTH / 2) / (HEIGHT / 2))[None, None, :]
    y = ((np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / (HEIGHT / 2))[None, :, None]
    t = (np.arange(num_frames) / FPS)[:, None, None]
    colour = np.array(colorsys.hsv_to_rgb(scene.uniform(), scene.uniform(0.5, 1.0), scene.uniform(0.7, 0.95)))
    first = np.array(colorsys.hsv_to_rgb(scene.uniform(), scene.uniform(0.3, 0.7), scene.uniform(0.15, 0.45)))
    second = first * scene.uniform(0.5, 1.0)
    angle = scene.uniform(0, 2 * np.pi)
    blend = np.clip(0.5 + 0.4 * (x * np.cos(angle) + y * np.sin(angle)), 0, 1)[..., None]
    distance = CLASSES[class_name](x, y, t, rng)
    inside = np.clip(0.5 - distance * (HEIGHT / 4), 0, 1)[..., None]  # two pixels of soft edge
    frames = inside * colour + (1 - inside) * (blend * first + (1 - blend) * second)
    return np.round(frames * 255).astype(np.uint8)


def write_dataset(
    root: str | os.PathLike[str], *, seed: int = 0, clips_per_group: int = 4, num_frames: int = 32
) -> Path:
    """Writes the whole data set below `root`, as UCF-101 lies on disk: 25 groups a class, .avi, three folds.

    A folder that was finished before with the same arguments is left as it is; an unfinished one, or one of
    other arguments, is an error rather than a mixture.

    Raises:
        ValueError: `root` holds something else.
    """
    root = Path(root)
    recipe = f"seed={seed} clips_per_group={clips_per_group} num_frames={num_frames}\n"
    marker = root / "SYNTHETIC.txt"
    if marker.exists() and marker.read_text(encoding="utf-8") == recipe:
        print(f"{root} is done already, by the same command")
        return root
    if root.exists() and any(root.iterdir()):
        seen = marker.read_text(encoding="utf-8").strip() if marker.exists() else "files of another origin"
        raise ValueError(
            f"{root} holds {seen}, not {recipe.strip()}: name an empty folder or remove this one"
        )
    jobs = [
        (label, name, group, clip)
        for label, name in enumerate(CLASSES)
        for group in range(1, NUM_GROUPS + 1)
        for clip in range(1, clips_per_group + 1)
    ]
    with new_folder(root) as partial:

        def write(job: tuple[int, str, int, int]) -> None:
            label, name, group, clip = job
            frames = draw_clip(name, num_frames, [seed, label, group], [seed, label, group, clip])
            write_video(partial / name / f"v_{name}_g{group:02d}_c{clip:02d}.avi", frames, FPS)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # the encoder is a process of its own
            list(tqdm(pool.map(write, jobs), total=len(jobs), desc="drawing clips", unit="clip"))
        _write_split_lists(partial / "ucfTrainTestlist", jobs)
        write_text(partial / marker.name, recipe)
    print(f"wrote {root}")
    return root


def _write_split_lists(folder: Path, jobs: list[tuple[int, str, int, int]]) -> None:
    write_text(folder / "classInd.txt", "".join(f"{i} {name}\n" for i, name in enumerate(CLASSES, start=1)))
    for fold in (1, 2, 3):
        test_groups = range((fold - 1) * NUM_TEST_GROUPS + 1, fold * NUM_TEST_GROUPS + 1)
        train, test = [], []
        for label, name, group, clip in jobs:
            line = f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi"
            if group in test_groups:
                test.append(f"{line}\n")
            else:
                train.append(f"{line} {label + 1}\n")
        write_text(folder / f"trainlist{fold:02d}.txt", "".join(train))
        write_text(folder / f"testlist{fold:02d}.txt", "".join(test))
