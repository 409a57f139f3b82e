"""What is committed: no large file, no path of one machine, one version everywhere."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from lwnb.base.places import CHECKOUT

LARGEST, BACKBONE = 1_500_000, 4_000_000
"""Bytes; records and sources are small text, data stay out, and of weights all but those of a pretrained source."""

MACHINE_PATH = re.compile(r"(?:^|[^A-Za-z0-9_.])/(?:work|farm|root|home)/", re.MULTILINE)


def committed() -> list[Path]:
    """Every file that is committed or would be by `git add --all`."""
    if not (CHECKOUT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout, or no git: what is committed cannot be listed")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    files = [CHECKOUT / name for name in names.split("\0") if name]
    assert CHECKOUT / "pyproject.toml" in files
    return [file for file in files if file.is_file()]


def test_no_large_file():
    limit = {"results/.safetensors": BACKBONE}
    sizes = {file.relative_to(CHECKOUT): file.stat().st_size for file in committed()}
    assert [n for n, size in sizes.items() if size > limit.get(f"{n.parts[0]}/{n.suffix}", LARGEST)] == []


def test_no_path_of_one_machine():
    texts = {file: file.read_text(encoding="utf-8", errors="ignore") for file in committed()}
    found = [
        f"{f.relative_to(CHECKOUT)}: {m.group()!r}" for f, text in texts.items() for m in MACHINE_PATH.finditer(text)
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["work", "farm", "root", "home"])
def test_a_planted_path_is_found(folder):
    for text in (f"/{folder}/x", f"see\n/{folder}/x", f'open("/{folder}/x")', f"file:///{folder}/x"):
        assert MACHINE_PATH.search(text), text
    for text in (f"a/{folder}/b", f"../{folder}/b", f"example.org/{folder}/", f"/{folder}"):
        assert not MACHINE_PATH.search(text), text


def test_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2505.03303"
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format requires
