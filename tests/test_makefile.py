"""The targets of the Makefile, run by make with a stand-in for Python that only writes down how it was called."""

import os
import shutil
import subprocess
import sys

import pytest

from lwnb.base.places import CHECKOUT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

PYTHON = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
    *version_info*) exec INTERPRETER "$@" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/lwnb" ;;
    *"$BREAKS"*) exit 1 ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """A folder with the Makefile and its inputs, and a stand-in for Python."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(CHECKOUT / name, tmp_path)
    (tmp_path / "python").write_text(PYTHON.replace("INTERPRETER", sys.executable))
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def make(clone, *words: str, breaks: str = "nothing") -> tuple[int, list[str]]:
    """Exit status of make, and the calls it made beside the question for the version."""
    log = clone / "calls"
    log.write_text("")
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")} | {"CALLS": str(log), "BREAKS": breaks}
    done = subprocess.run(
        ["make", "PYTHON=./python", *words], cwd=clone, env=env, check=False, capture_output=True, timeout=60
    )
    return done.returncode, [line for line in log.read_text().splitlines() if "version_info" not in line]


INSTALLATION = [
    "-m venv .venv",
    "-m pip install --requirement requirements.lock",
    "-m pip install --no-build-isolation --no-deps --editable .",
]


def test_first_call_installs_and_a_second_does_not(clone):
    assert make(clone, "test", "ARGS=-x") == (0, [*INSTALLATION, "-m pytest -x"])
    assert make(clone, "test") == (0, ["-m pytest"])
    checks = ["-m ruff check", "-m ruff format --check", "-m pytest -m not slow -x"]
    assert make(clone, "check", "ARGS=-x") == (0, checks)
    assert make(clone, "report", "ARGS=--force") == (0, ["report --force"])
    assert make(clone, "bench", "ARGS=--page cifar10") == (0, ["-m benchmarks --page cifar10"])


@pytest.mark.parametrize("step", ["--requirement", "--editable"])
def test_installation_that_broke_off_is_done_again(clone, step):
    status, calls = make(clone, "report", breaks=step)
    assert status != 0 and step in calls[-1]
    assert make(clone, "report") == (0, [*INSTALLATION, "report"])


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_changed_requirements_are_installed(clone, name):
    make(clone, "report")
    later = (clone / ".venv" / "installed").stat().st_mtime + 10
    os.utime(clone / name, (later, later))
    assert make(clone, "report") == (0, [*INSTALLATION, "report"])


def test_python_too_old_is_refused_before_anything_is_made(clone):
    pretence = "import sys; sys.version_info = (3, 10, 4); sys.version = '3.10.4 x'"
    (clone / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{pretence}; $2"\n')
    done = subprocess.run(
        ["make", "PYTHON=./python", "test"], cwd=clone, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0 and "lwnb needs Python 3.11 or later; ./python is 3.10.4" in done.stderr
    assert not (clone / ".venv").exists()


def test_clean_keeps_what_was_measured(clone):
    for folder in ("build", "runs", "data", "results"):
        (clone / folder).mkdir()
    assert make(clone, "clean")[0] == 0
    assert sorted(p.name for p in clone.iterdir() if p.is_dir()) == ["data", "results", "runs"]
