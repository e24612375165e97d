"""Files that name the version or repeat what the Makefile runs agree with it."""

from __future__ import annotations

import re
from configparser import ConfigParser

import yaml
from packaging.version import Version

import vidtwin_gen
from tests.docs.pages import ROOT, read


def test_the_citation_is_of_the_newest_release_and_what_comes_after_it_says_so() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and citation["license"] == setup["metadata"]["license"]
    changes = read("CHANGELOG.md")
    releases = re.findall(r"^## (\d\S*) - (.+)$", changes, re.MULTILINE)
    assert (citation["version"], str(citation["date-released"])) == releases[0]
    ours, released = Version(vidtwin_gen.__version__), Version(citation["version"])
    assert ours > released and ours.is_devrelease if "\n## Unreleased\n" in changes else ours == released


def test_pre_commit_runs_the_linters_of_make_test() -> None:
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    hooks = {hook["entry"].removeprefix(".venv/bin/") for hook in repository["hooks"]}
    targets = re.findall(r"^(?:test|types|suite):.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
    assert len(targets) == 3 and "\t$(MAKE) --jobs=2 types suite\n" in targets[0]
    lines = [line for target in targets for line in target.splitlines() if line.startswith("\t$(BIN)/")]
    commands = {line.removeprefix("\t$(BIN)/").removesuffix(" .") for line in lines}
    assert hooks == {command for command in commands if not command.startswith("python")}
