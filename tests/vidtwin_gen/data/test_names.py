"""Class names from strangers: as files, and in Markdown."""

from pathlib import Path

import pytest

from vidtwin_gen.data.names import MOST_BYTES, check_class_names, file_names, markdown, names_of_files


def test_ordinary_names_are_the_names_of_their_files():
    names = ["ApplyEyeMakeup", "v1.0", "v2.0", "Größe 3", "a-b_(c)"]
    assert file_names(names) == names
    check_class_names(names)


def test_files_of_any_class_lie_where_they_should_and_are_different(tmp_path):
    names = [
        "../../x",
        "..",
        "",
        "a/b",
        "a:b",
        "a_b_003",
        "A/B",
        "x" * 300,
        "new\nline",
        " .hidden. ",
        "b\0c",
    ]
    made = file_names(names)
    for name in made:
        file = tmp_path / f"{name}_0000.mp4"
        file.touch()
        assert file.parent == tmp_path and Path(name).name == name and len(name.encode()) <= MOST_BYTES
    assert len({name.casefold() for name in made}) == len(names) == len(list(tmp_path.iterdir()))


def test_files_of_classes_are_known_again():
    names = ["massaging person's head", "Walk", "cleaning & drying", "?" + "x" * 100, "v_001"]
    changed = {file: name for file, name in zip(file_names(names), names, strict=True) if file != name}
    assert names_of_files(file_names(names), names) == changed and len(changed) == 3
    assert names_of_files(["WALK", "Massaging person_s head_017", "stranger_001"], names) == {
        "Massaging person_s head_017": names[0]  # its number in other data
    }
    assert names_of_files(["massaging person_s head"], names) == {"massaging person_s head": names[0]}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a_b_000"], ["a'b", "a:b"]),
        (["a_b_000", "a_b_001"], ["a'b", "c"]),
        (["a_b_000", "a'b"], ["a'b", "c"]),
        (["a_b_001"], ["a'b", "a_b_001"]),
        (["a_b_000"], ["a_b", "c"]),
    ],
    ids=str,
)
def test_a_file_that_may_be_of_several_classes_is_of_none(files, names):
    assert names_of_files(files, names) == {}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Walk", "walk"], "differ by more than their case, got 'Walk' and 'walk'"),
        (["Cafe\u0301", "Caf\u00e9"], "differ by more than their case"),
        (["a" * 240], "1 to 200 bytes.* has 240"),
        ([" "], "1 to 200 bytes"),
        (["bad\udcff"], "is not UTF-8"),
        (["a", "a"], "must differ"),
    ],
)
def test_names_that_a_later_step_could_not_take(names, message):
    with pytest.raises(ValueError, match=message):
        check_class_names(names)


def test_text_from_strangers_is_one_line_without_html():
    assert markdown("a|b\n<script>alert(1)</script> & c") == (
        "a\\|b &lt;script&gt;alert(1)&lt;/script&gt; &amp; c"
    )
