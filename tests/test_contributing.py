"""What CONTRIBUTING.md says is true: what it names is there, and a run goes the walk that it describes."""

import ast
import re
import sys
from pathlib import Path

import pytest
from cells import execute
from typer.testing import CliRunner

from lwnb import cli
from lwnb.base.places import CHECKOUT
from lwnb.report import book

TEXT = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PLACE = r"`(lwnb/[\w/]+\.py):([\w.]+)`"
PLACES = re.findall(PLACE, TEXT)
WALK = TEXT.split("## The walk of one run")[1].split("\n## ")[0]


def defined(file: Path) -> set[str]:
    """The names that a file defines: functions, classes, their methods, constants."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = [node] if hasattr(node, "name") else getattr(node, "targets", [getattr(node, "target", None)])
        names = [getattr(target, "name", getattr(target, "id", None)) for target in targets]
        members = [one.name for one in getattr(node, "body", []) if hasattr(one, "name")]
        found |= {*names, *(f"{names[0]}.{member}" for member in members)}
    return found


def missing(places) -> list[str]:
    return [f"{file}:{name}" for file, name in places if name not in defined(CHECKOUT / file)]


def test_what_it_names_is_there():
    assert len(PLACES) > 20 and missing(PLACES) == []
    assert missing([("lwnb/cli.py", "report"), ("lwnb/cli.py", "reprot")]) == ["lwnb/cli.py:reprot"]


def test_files_and_folders_that_it_names_are_there():
    names = set(re.findall(r"`([\w.*]+(?:/[\w.*]*)+)`", TEXT)) - {"runs/"}
    gone = [name for name in names if not (list(CHECKOUT.glob(name)) or list((CHECKOUT / "lwnb").glob(name)))]
    assert len(names) > 10 and gone == []
    assert all((CHECKOUT / "tests" / name).exists() for name in re.findall(r"`(\w+\.py)`: ", TEXT))


def test_every_room_is_on_the_map():
    rooms = {place.parent.name for place in (CHECKOUT / "lwnb").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)/` \|", TEXT, flags=re.MULTILINE)) == rooms


@pytest.mark.slow
def test_a_run_goes_the_walk(house, monkeypatch):
    """Its functions are called in its order, whatever else is called between them."""
    called, root = [], str(CHECKOUT) + "/"

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(root):
            called.append((frame.f_code.co_filename.removeprefix(root), frame.f_code.co_qualname))

    def shown(pages, *_, **__):
        execute("01_architectures", pages[0].values, monkeypatch)
        return house / "index.html", []

    steps = [step for step in dict.fromkeys(re.findall(PLACE, WALK)) if not step[1].isupper()]
    monkeypatch.setattr(book, "report", shown)
    words = ["models=[squeezenet1_1]", "notebooks=[01_architectures]", "epochs=1", "train_size=100", "test_size=100"]
    sys.setprofile(note)
    try:
        done = CliRunner().invoke(cli.app, ["report", "digits", *(part for word in words for part in ("-p", word))])
    finally:
        sys.setprofile(None)
    assert done.exit_code == 0, (done.output, done.exception)
    steps.remove(("lwnb/report/book.py", "report"))
    rest = iter(called)
    assert [step for step in steps if step not in rest] == [], "not called, or not after the step before"
