"""How the tests are laid out: a folder for each room, helpers beside them, and no test file that leans on another."""

import ast
from collections import Counter

import pytest

from lwnb.base.places import CHECKOUT

TESTS = CHECKOUT / "tests"
FILES = sorted(TESTS.rglob("*.py"))
ROOMS = {place.parent.name for place in (CHECKOUT / "lwnb").glob("*/__init__.py")}


def imported(source: str) -> set[str]:
    """The modules that a source text imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_every_room_has_its_folder_and_every_folder_its_room():
    """`base` has no tests of its own: all others use it."""
    assert {file.parent.name for file in FILES if file.parent != TESTS} == ROOMS - {"base"}


def test_no_two_files_have_one_name():
    """pytest knows test files by their names, since the folders are no packages."""
    assert Counter(file.name for file in FILES).most_common(1)[0][1] == 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_file_imports_a_test_file(file):
    """What two files use lies in a helper beside conftest.py."""
    names = {name.split(".")[-1] for name in imported(file.read_text(encoding="utf-8"))}
    assert not names & {other.stem for other in FILES if other.name.startswith("test_")}


def test_a_planted_import_is_seen():
    assert imported("def f():\n    from test_train import tiny\nimport test_params") == {"test_train", "test_params"}


@pytest.mark.parametrize("file", [f for f in FILES if f.parent != TESTS], ids=lambda file: file.stem)
def test_a_room_s_tests_test_that_room(file):
    names = imported(file.read_text(encoding="utf-8"))
    assert any(name.startswith(f"lwnb.{file.parent.name}") for name in names)
