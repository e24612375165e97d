"""benchmarks/processes, of a module in place of a command."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.processes import main

SCRIPT = """
import os, sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(exist_ok=True)
(out / "threads.txt").write_text(os.environ["OMP_NUM_THREADS"])
"""
WITH_COUNT = '(out / "processes.txt").write_text(os.environ.get("WORLD_SIZE", "1"))\n'


pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="holds processes to cores, two of them, as Linux can",
)


@pytest.mark.slow
def test_a_command_is_timed_by_one_process_and_by_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "writes_threads.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    main(["--rounds", "2", "--", "writes_threads"])
    told = json.loads(capsys.readouterr().out)
    assert {name: len(times) for name, times in told["seconds"].items()} == {"1": 2, "2": 2, "1, free": 2}
    assert set(told["ratios"]) == {"2 / 1", "2 / 1, free"}


def test_files_of_other_bytes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "writes_processes.py").write_text(SCRIPT + WITH_COUNT)
    with pytest.raises(RuntimeError, match=r"processes 2: .*\['processes\.txt'\]"):
        main(["--rounds", "1", "--", "writes_processes"])
