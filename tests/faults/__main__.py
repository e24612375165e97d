"""Does every command that writes end well, whatever happens to it? `make faults`

    python -m tests.faults --commands encode train_dit --faults full SIGTERM --seed 1 --out table.json

Each command runs on small inputs in a child, and something happens to it. It ends well when it says so in one
line, with the status that belongs to it, leaves no process behind, and the same command then gives the very
files that an undisturbed run gives. Linux; as root disks are small tmpfs mounts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import psutil
import torch

import train_dit
import train_vae
from autoencoder.__main__ import main as autoencoder
from eval.__main__ import main as evaluation
from eval.fvd.i3d import I3D_WEIGHTS
from pipelines.__main__ import main as pipelines
from tests.builders import inputs
from tests.builders.forked import Ended, Main, Started, files_below, warm
from tests.builders.inputs import ACCURACY, DIT, ENCODE, FVD, RECON, REFERENCE, SAMPLE, VAE, VIDEO
from tests.builders.runs import command_line
from vidtwin_gen import demo
from vidtwin_gen.__main__ import main as vidtwin_gen
from vidtwin_gen.data import synthetic
from vidtwin_gen.files import write_json
from vidtwin_gen.program import children

PLACE = "place"  # the folder, on a disk of its own, that holds a command's output
BLOCK = 4096


@dataclass(frozen=True)
class Command:
    """A command that writes `out`, a file or folder below PLACE; `copied`: what it writes into."""

    main: Main
    words: Sequence[object]
    out: str
    copied: str = ""

    def start(
        self, case: Path, prepare: Callable[[], object] = lambda: None, said: str = "said.txt"
    ) -> Started:
        def first() -> None:
            inputs.use_filters()
            make_small()
            prepare()

        environment = {I3D_WEIGHTS.variable: "no-such-file"}
        output = case / said
        return Started(self.main, self.words, case, prepare=first, environment=environment, output=output)

    def make_case(self, inputs_folder: Path, case: Path) -> None:
        """The inputs as links, and the place."""
        case.mkdir()
        for path in inputs_folder.iterdir():
            (case / path.name).symlink_to(path)
        (case / PLACE).mkdir()

    def copy(self, case: Path) -> None:
        if self.copied and not (case / self.out).exists():
            shutil.copytree(case / self.copied, case / self.out)


def _to_folder(main: Main, *words: object) -> Command:
    return Command(main, [*words, "--out", f"{PLACE}/out"], f"{PLACE}/out")


def _to_file(main: Main, *words: object, suffix: str = ".json") -> Command:
    return Command(main, [*words, "--out", f"{PLACE}/out{suffix}"], f"{PLACE}/out{suffix}")


def _training(name: str, flags: dict[str, Any]) -> Command:
    words = [name, *command_line(flags, output_dir=f"{PLACE}/out")]
    return Command(vidtwin_gen, words, f"{PLACE}/out")


EDIT = ["edit", *SAMPLE, "--video", VIDEO, "--keep", "structure", "--class_labels", 0, 3, "--stride", 1]
MEASURED = ["--vae", "vae", "--data", "videos", "--num_workers", 0, "--no-lpips"]
COMMANDS = {
    "data": _to_folder(vidtwin_gen, "data", "--clips_per_group", 1),
    "train_vae": _training("train-vae", VAE),
    "train_dit": _training("train-dit", DIT),
    "encode": _to_folder(vidtwin_gen, *ENCODE, "--windows_per_file", 1),
    "generate": _to_folder(pipelines, "generate", *SAMPLE, "--num_videos_per_class", 2, "--batch_size", 2),
    "edit": _to_folder(pipelines, *EDIT),
    "recon": _to_file(evaluation, *RECON, "--gif", f"{PLACE}/out.gif"),
    "fvd": _to_file(evaluation, *FVD, "--data", "videos", "--vae", "vae", "--batch_size", 1),
    "accuracy": _to_file(evaluation, *ACCURACY, "--real_gifs", f"{PLACE}/real"),
    "diagnose": _to_file(evaluation, "diagnose", *MEASURED, "--no-fvd", "--figure", f"{PLACE}/out.png"),
    "cost": _to_file(evaluation, "cost", "--pipeline", "pipeline"),
    "reference": _to_file(evaluation, *REFERENCE, "--batch_size", 1, suffix=".safetensors"),
    "report": Command(evaluation, ["report", f"{PLACE}/out"], f"{PLACE}/out", copied="run"),
    "reconstruct": _to_folder(autoencoder, "reconstruct", VIDEO, "--vae", "vae"),
    "demo": _to_folder(vidtwin_gen, "demo"),
    "export": _to_folder(vidtwin_gen, "export", "--checkpoint", "dit/checkpoint-2"),
    "card": Command(pipelines, ["card", "--pipeline", f"{PLACE}/out"], f"{PLACE}/out", copied="pipeline"),
}
TRAININGS = {"train_vae": "training_vae", "train_dit": "dit"}  # and a run that was killed in its last step


class ForkedTraining(Started):
    """What the demo starts, in place of a Python that imports everything anew: with a session, signals and an
    end as that of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], preexec_fn: Callable[[], object], **_: object) -> None:
        name = command[2]
        words = [name.replace("_", "-"), *command[3:]]
        super().__init__(
            vidtwin_gen, words, Path.cwd(), prepare=preexec_fn, output=Path(f"said-{name}.txt").absolute()
        )

    send_signal = Started.send

    def wait(self, *_: object) -> int:  # type: ignore[override]
        ended = super().wait(limit_s=300)
        print(ended.said, flush=True)
        return ended.status


def make_small() -> None:
    """In a child: the embedded data of two classes, and a demo of a few steps."""
    synthetic.CLASSES = dict(list(synthetic.CLASSES.items())[:2])
    synthetic.NUM_GROUPS, synthetic.NUM_TEST_GROUPS = 6, 2
    demo.DEMO_SIZES["demo"] = demo.DemoSize(
        stride=1, windows_per_video=1, videos_per_class=2, more_videos_per_class=2, fvd_clips=2
    )
    train_vae.PRESETS["demo"] = {name: VAE[name] for name in VAE if name != "data"}
    train_dit.PRESETS["demo"] = {name: DIT[name] for name in DIT if name not in ("vae", "latents")}
    children.subprocess = SimpleNamespace(Popen=ForkedTraining)  # type: ignore[assignment]


class Trials:
    """Commands on `inputs`, each in a case of its own below `folder`."""

    def __init__(self, inputs_folder: Path, folder: Path, seed: int) -> None:
        self.inputs, self.folder, self.seed = inputs_folder, folder, seed
        self.whole: dict[str, tuple[dict[str, str], float, int]] = {}
        self.count = 0

    @contextlib.contextmanager
    def case(self, command: Command) -> Iterator[Path]:
        """A folder to run it in; what still runs there afterwards is ended."""
        self.count += 1
        case = self.folder / f"case-{self.count}"
        command.make_case(self.inputs, case)
        try:
            yield case
        finally:
            for process in running_in(case):
                process.kill()
            while os.path.ismount(case / PLACE):
                unmount(case / PLACE)
            shutil.rmtree(case)

    def undisturbed(self, name: str) -> tuple[dict[str, str], float, int]:
        """The files that a command makes, its seconds, and the bytes that they take on a disk."""
        if name not in self.whole:
            with self.case(COMMANDS[name]) as case:
                COMMANDS[name].copy(case)
                before = _bytes(case / PLACE)
                ended = COMMANDS[name].start(case).wait(limit_s=300)
                if ended.status:
                    raise RuntimeError(f"{name} fails undisturbed: {ended.said}")
                size = _bytes(case / PLACE) - before
                self.whole[name] = result_of(case), ended.seconds, size
        return self.whole[name]

    def again(self, name: str, case: Path) -> list[str]:
        """What is wrong with the same command, undisturbed at last."""
        COMMANDS[name].copy(case)
        ended = COMMANDS[name].start(case).wait(limit_s=300)
        if ended.status:
            return [f"again: status {ended.status}, {tail(ended)}"]
        files, whole = result_of(case), self.undisturbed(name)[0]
        names = sorted(path for path in files.keys() | whole.keys() if files.get(path) != whole.get(path))
        return [f"again: not exact, {', '.join(names[:5])}"] if names else []

    def full(self, name: str, rng: Random) -> list[str]:
        """A disk that fills."""
        command, (_, _, size) = COMMANDS[name], self.undisturbed(name)
        limit = BLOCK * (2 + int(rng.random() * size / BLOCK))
        with self.case(command) as case:
            copied = _bytes(case / command.copied) if command.copied else 0
            with disk(case / PLACE, copied + limit) as (prepare, more):
                command.copy(case)
                ended = command.start(case, prepare).wait(limit_s=300)
                more()
                return refusal(ended, "a full disk", may_end=True) + self.again(name, case)

    def unwritable(self, name: str, rng: Random) -> list[str]:
        """A folder that takes no files."""
        with self.case(COMMANDS[name]) as case, disk(case / PLACE, 2**28) as (_, _):
            COMMANDS[name].copy(case)
            read_only(case / PLACE, True)
            ended = COMMANDS[name].start(case).wait(limit_s=300)
            read_only(case / PLACE, False)
            return refusal(ended, "no permission") + self.again(name, case)

    def other_kind(self, name: str, rng: Random) -> list[str]:
        """A file in place of the folder that is to be written, or the other way round."""
        with self.case(COMMANDS[name]) as case:
            out = case / COMMANDS[name].out
            if out.suffix:
                out.mkdir()
            else:
                out.write_text("kept")
            ended = COMMANDS[name].start(case).wait(limit_s=300)
            if out.is_file() and out.read_text() != "kept":
                return ["the file was overwritten"]
            shutil.rmtree(out) if out.is_dir() else out.unlink()
            return refusal(ended, "another kind") + self.again(name, case)

    def signalled(self, name: str, rng: Random, number: int) -> list[str]:
        """A signal at a random moment; half of the SIGKILLs of what trains while a checkpoint is written."""
        with self.case(COMMANDS[name]) as case:
            COMMANDS[name].copy(case)
            started = COMMANDS[name].start(case)
            moment = rng.random() * self.undisturbed(name)[1]
            trains = name in TRAININGS or name == "demo"
            at_checkpoint = number == signal.SIGKILL and trains and rng.random() < 0.5
            while started.is_running() and (at_checkpoint or started.seconds < moment):
                if at_checkpoint and saves_a_checkpoint(case):
                    time.sleep(rng.random() * 0.03)
                    break
                time.sleep(0.002)
            started.send(number)
            ended = started.wait(limit_s=started.seconds + 60)
            problems = left_behind(case)
            expected = {0, -number, 128 + number}
            if ended.status not in expected or ended.traceback:
                problems.append(f"status {ended.status} after {ended.seconds:.2f} s, {tail(ended)}")
            return problems + self.again(name, case)

    def twice(self, name: str, rng: Random) -> list[str]:
        """Two at once: one may be refused, and neither harms the other."""
        with self.case(COMMANDS[name]) as case:
            COMMANDS[name].copy(case)
            first = COMMANDS[name].start(case)
            time.sleep(rng.random() * 0.5 * self.undisturbed(name)[1])
            second = COMMANDS[name].start(case, said="said-too.txt")
            ends = [second.wait(limit_s=300), first.wait(limit_s=300)]
            problems = []
            if all(ended.status for ended in ends):
                problems.append("neither ended well")
            for ended in ends:
                refused = "process" in ended.error or "is there already" in ended.error
                if ended.status and not (refused and ended.status == 2):
                    problems.append(f"status {ended.status}, {tail(ended)}")
            return problems + left_behind(case) + self.again(name, case)

    def repeated(self, name: str, rng: Random) -> list[str]:
        """The same command after it has ended."""
        with self.case(COMMANDS[name]) as case:
            return self.again(name, case) or self.again(name, case)

    def damaged(self, name: str, file: str, way: str) -> list[str]:
        """A file of the newest checkpoint of a run that was killed in its last step."""
        with self.case(COMMANDS[name]) as case:
            shutil.copytree(self.inputs / TRAININGS[name], case / COMMANDS[name].out)
            path = case / COMMANDS[name].out / "checkpoint-2" / file
            data = bytearray(path.read_bytes())
            if way == "removed":
                path.unlink()
            elif way == "flipped":
                data[len(data) // 2] ^= 1
            path.exists() and path.write_bytes({"emptied": b"", "cut": data[: len(data) // 2]}.get(way, data))
            return self.again(name, case)


def tail(ended: Ended) -> str:
    return f"{ended.stopped} {' '.join(ended.said.split())[-250:]}"


def refusal(ended: Ended, what: str, *, may_end: bool = False) -> list[str]:
    """What is wrong with how a command was refused."""
    if may_end and ended.status == 0:
        return []
    well = ended.status in (1, 2) and ended.error and not ended.traceback and not ended.stopped
    return [] if well else [f"{what}: status {ended.status}, {tail(ended)}"]


def result_of(case: Path) -> dict[str, str]:
    """The files of a command's place, but for those of a demo that have times in them."""
    files = files_below(case / PLACE)
    timed = ("out/demo.json", "out/report.md", "out/report.html") if "out/demo.json" in files else ()
    return {name: digest for name, digest in files.items() if name not in timed}


def saves_a_checkpoint(case: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # folders come and go
        return any(case.glob(f"{PLACE}/out/**/partial-checkpoint-*"))
    return False


def running_in(case: Path) -> list[psutil.Process]:
    """Processes whose working folder is in a case."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(case):
                found.append(process)
    return found


def left_behind(case: Path) -> list[str]:
    """Those that still run a while later."""
    until = time.monotonic() + 5
    while (left := running_in(case)) and time.monotonic() < until:
        time.sleep(0.05)
    return [f"left behind: {len(left)} processes"] if left else []


def _bytes(folder: Path) -> int:
    """On a disk."""
    return sum(
        BLOCK * (1 + (path.stat().st_size - 1) // BLOCK) for path in folder.rglob("*") if path.is_file()
    )


@contextlib.contextmanager
def disk(place: Path, size: int) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
    """A disk of so many bytes at `place`: what a child has to do first, and a function that makes it larger.
    Who is not root has a limit on each file instead."""
    if os.geteuid():
        yield partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size)), lambda: None
        return
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)
    try:
        yield lambda: None, lambda: mount("-o", f"remount,size={2**28}", place)
    finally:
        unmount(place)


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def unmount(place: Path) -> None:
    subprocess.run(["umount", "--lazy", place], check=True)


def read_only(place: Path, is_so: bool) -> None:
    if os.geteuid():
        place.chmod(0o555 if is_so else 0o755)
    else:
        mount("-o", f"remount,{'ro' if is_so else 'rw'}", place)


KILLED = ("train_vae", "train_dit", "encode", "generate", "fvd", "demo")


def trials_of(trials: Trials, name: str, tries: int) -> Iterator[tuple[str, Callable[[Random], list[str]]]]:
    """All that happens to a command: the fault's name, and what makes it happen."""
    for fault, count in {"full": 5, "SIGINT": 10, "SIGTERM": 10, "SIGKILL": 12 * (name in KILLED)}.items():
        for _ in range(min(count, tries)):
            if fault == "full":
                yield fault, partial(trials.full, name)
            else:
                yield fault, partial(trials.signalled, name, number=getattr(signal, fault))
    yield "unwritable", partial(trials.unwritable, name)
    if not COMMANDS[name].copied:
        yield "other kind", partial(trials.other_kind, name)
    for _ in range(min(3, tries)):
        yield "twice", partial(trials.twice, name)
    yield "repeated", partial(trials.repeated, name)
    if name in TRAININGS:
        newest = trials.inputs / TRAININGS[name] / "checkpoint-2"
        for path in sorted(path for path in newest.rglob("*") if path.is_file()):
            for way in ("emptied", "cut", "flipped", "removed")[:tries]:
                file = path.relative_to(newest).as_posix()
                yield "damaged", lambda _, file=file, way=way: trials.damaged(name, file, way)


FAULTS = ("full", "unwritable", "other kind", "SIGINT", "SIGTERM", "SIGKILL", "twice", "repeated", "damaged")


def markdown(tried: Counter[tuple[str, str]], well: Counter[tuple[str, str]]) -> str:
    """A row for each command: how many ended well of how many tried."""
    lines = [f"| command | {' | '.join(FAULTS)} | all |", "|---" * (len(FAULTS) + 2) + "|"]

    def cell(names: Sequence[str], faults: Sequence[str]) -> str:
        keys = [(name, fault) for name in names for fault in faults]
        count = sum(tried[key] for key in keys)
        return f"{sum(well[key] for key in keys)} of {count}" if count else ""

    names = list(dict.fromkeys(name for name, _ in tried))
    for title, row in [*((name, [name]) for name in names), ("all", names)]:
        cells = [cell(row, [fault]) for fault in FAULTS]
        lines.append(f"| {title} | {' | '.join(cells)} | {cell(row, FAULTS)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--tries", type=int, default=12, help="of each fault, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for what did not end well")
    flags = parser.parse_args(argv)
    torch.set_num_threads(1)
    warm()
    tried: Counter[tuple[str, str]] = Counter()
    well: Counter[tuple[str, str]] = Counter()
    failures: list[dict[str, Any]] = []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "inputs").mkdir()
        making = Started(inputs.make_inputs, [], folder / "inputs", prepare=inputs.use_filters)
        made = making.wait(limit_s=300)
        if made.status:
            raise RuntimeError(f"the inputs can't be made: {made}")
        before = files_below(folder / "inputs")
        trials = Trials(folder / "inputs", folder, flags.seed)
        with contextlib.suppress(KeyboardInterrupt):  # what was tried until then is in the table
            for name in flags.commands:
                for number, (fault, trial) in enumerate(trials_of(trials, name, flags.tries)):
                    if fault not in flags.faults:
                        continue
                    problems = trial(Random(f"{flags.seed} {name} {number}"))
                    tried[name, fault] += 1
                    well[name, fault] += not problems
                    if problems:
                        failures.append(
                            {"command": name, "fault": fault, "number": number, "problems": problems}
                        )
                        print(f"{name}: {fault} {number}: {'; '.join(problems)}", flush=True)
                if files_below(folder / "inputs") != before:
                    raise RuntimeError(f"{name} has changed its inputs")
    print(markdown(tried, well))
    if flags.out:
        write_json(flags.out, {"seed": flags.seed, "failures": failures})
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
