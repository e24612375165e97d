"""Lays out a Space of the studio: the code, the shipped weights, app.py, README.md and requirements.txt.

python examples/space/make_space.py space
hf upload USER/NAME space --repo-type space
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path

from vidtwin_gen.files import new_folder
from vidtwin_gen.program.errors import user_errors

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDERS = ("vidtwin_gen", "autoencoder", "pipelines", "eval", "pretrained/moving-shapes")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", help="a new folder")
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    with new_folder(parser.parse_args(argv).out) as space:
        for folder in FOLDERS:
            shutil.copytree(ROOT / folder, space / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("app.py", "README.md"):
            shutil.copyfile(HERE / file, space / file)
        required = setup["options"]["install_requires"].strip()
        index = "--extra-index-url https://download.pytorch.org/whl/cpu"  # a free Space has no GPU
        (space / "requirements.txt").write_text(f"{index}\n{required}\n")


if __name__ == "__main__":
    with user_errors():
        main()
