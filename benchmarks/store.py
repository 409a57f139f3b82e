"""Results as lines of JSON: one a job, appended as the job ends, so that a kill costs one job.
And where a job works."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lwnb.base.places import home


def key(job: dict) -> str:
    """A job's identity: its fields as canonical JSON."""
    return json.dumps(_placeless(job), sort_keys=True)


def _placeless(job: dict) -> dict:
    """A job without the folder of its images, which is another one on each machine."""
    return job | {"source": job["source"] | {"data_root": None}} if "source" in job else job


def read(file: Path) -> dict[str, dict]:
    """The results that are there, by the key of their job; a line that a kill tore is left out, and so run again."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[key(row["job"])] = row
    return found


def append(file: Path, job: dict, result: dict) -> None:
    """Add one result. It begins on a line of its own, whatever was torn before it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"job": _placeless(job)} | result) + "\n"
    with file.open("a+b") as stream:
        if stream.tell() and os.pread(stream.fileno(), 1, stream.tell() - 1) != b"\n":
            line = "\n" + line
        stream.write(line.encode())
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def fresh_home(folder: Path) -> Iterator[Path]:
    """A home for one job, inside a folder: no run is in it; data sets, decoded once, are those of the real home."""
    data = home() / "data"
    for needed in (folder, data):
        needed.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        (Path(name) / "data").symlink_to(data)
        yield Path(name)
