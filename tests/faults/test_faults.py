"""The quick part of `make faults`."""

import pytest

from tests.faults.__main__ import main


@pytest.mark.slow
def test_commands_end_well(capsys):
    commands = ["--commands", "train_dit", "reference"]
    assert main([*commands, "--faults", "other kind", "SIGKILL", "twice", "--tries", "1"]) == 0
    (last,) = capsys.readouterr().out.splitlines()[-1:]
    assert last.startswith("| all | ") and last.endswith("| 5 of 5 |")
