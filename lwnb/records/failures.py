"""Why the last try of a run failed."""

import sys
import traceback
from pathlib import Path

from lwnb.base import disk
from lwnb.plan.run import Run
from lwnb.records import folders

unwritten: dict[Path, dict] = {}
"""Failures that this process could not write, by the folder that they belong in."""


def fail(run: Run, error: BaseException) -> None:
    """Keep the reason of a failure beside what the run had reached; a later try starts from there."""
    trace = "".join(traceback.format_exception(error))
    reason = f"{type(error).__name__}: {error}"
    keep_failure(run, {"reason": reason, "traceback": trace, "run": run.model_dump()})


def keep_failure(run: Run, failure: dict) -> None:
    """Write a failure as `failure` returns it; where the disk is full, it lasts as long as this process."""
    unwritten[folders.part(run)] = failure
    try:
        disk.write(folders.part(run) / "failure.json", disk.json_bytes(failure))
        del unwritten[folders.part(run)]
    except OSError as error:
        text = f"{run.dataset} {run.model} {run.key}: the failure could not be recorded ({error})"
        print(f"{text}:\n{failure['traceback']}", file=sys.stderr, flush=True)


def failure(run: Run) -> dict | None:
    """Why the last try of this run failed: reason, traceback and run; None if it did not."""
    file = folders.part(run) / "failure.json"
    return unwritten.get(folders.part(run)) or (disk.read_json(file) if file.exists() else None)
