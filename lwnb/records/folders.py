"""Where the record of a run lies, and what its files are called."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from lwnb.base import disk
from lwnb.base.places import home
from lwnb.plan.run import Run

FILES = ("run.json", "metrics.json", "history.csv", "predictions.npz", "environment.json")
"""The files of a record that `publish` copies: small, and no weights."""

WEIGHTS = "weights.safetensors"

SOURCE = "source.json"
"""Where the images of a run lay on this machine, for what reads them again, such as the calibration of INT8; never
published."""

CONVERSIONS = "conversions.json"
"""What the exported and the INT8 networks of a run do on its test images; joins a record when it is known."""


def folder(run: Run, root: str = "runs") -> Path:
    """`<home>/<root>/<dataset>/<model>/<key>`."""
    return home() / root / inside(run)


def inside(run: Run) -> Path:
    return Path(run.dataset, run.model, run.key)


def part(run: Run) -> Path:
    """The folder of a run that is not finished: its checkpoint, or why it failed."""
    return folder(run).with_name(f"{run.key}.part")


@contextmanager
def lock(run: Run) -> Iterator[None]:
    """Keep all other processes from training this run; a process that dies lets go of it."""
    disk.make(part(run).parent)
    with FileLock(part(run).with_suffix(".lock")):
        yield
