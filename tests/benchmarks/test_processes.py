"""benchmarks/processes, of a script in place of a command."""

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
TELLING = '(out / "processes.txt").write_text(os.environ.get("WORLD_SIZE", "1"))\n'


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
@pytest.mark.parametrize("source", [SCRIPT, SCRIPT + TELLING], ids=["same", "other bytes"])
def test_a_command_is_timed_and_its_files_are_compared(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(source)
    if source != SCRIPT:
        with pytest.raises(RuntimeError, match=r"processes 2: .*\['processes\.txt'\]"):
            main(["--rounds", "1", "--", str(script)])
        return
    main(["--rounds", "1", "--", str(script)])
    told = json.loads(capsys.readouterr().out)
    assert set(told["seconds"]) == {"1", "2", "1, free"} and set(told["ratios"]) == {"2 / 1", "2 / 1, free"}
    assert told["ratios"]["2 / 1"] == pytest.approx(
        told["seconds"]["2"][0] / told["seconds"]["1"][0], abs=0.005
    )
