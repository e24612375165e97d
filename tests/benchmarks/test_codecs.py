"""Each window of each codec and container is the decode in order, in small; the command does it in full."""

import pytest

from benchmarks.codecs import ENCODINGS, compare, encode, main, pattern


@pytest.mark.parametrize("name", ENCODINGS)
def test_each_window_is_the_decode_in_order(name, tmp_path):
    path = encode(name, pattern("64x48", 36), tmp_path)
    if path is None:
        pytest.skip(f"this ffmpeg has no encoder for {name}")
    row = compare(path, 8)
    assert (row.wrong, row.refused) == ([], [])
    assert row.num_frames == row.num_decoded > 12 and row.num_windows == row.num_frames - 7


def test_the_command_prints_a_row_for_each_file(monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.codecs.ENCODINGS", {"MPEG-2": ENCODINGS["MPEG-2"]})
    assert main(["--window", "50"]) == 0
    assert "| pattern | MPEG-2 | 60 | pyav | 11 | 0 | 0 |" in capsys.readouterr().out
