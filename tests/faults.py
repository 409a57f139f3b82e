"""Children that die at a chosen step, or find the disk full: real processes, forked from one that has torch loaded."""

import errno
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["lwnb.training.train", "lwnb.batch.grid", "pandas"])

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}
"""The events of Python's auditing that are steps (https://docs.python.org/3/library/audit_events.html), below the home.

So are a file whose first write is half done, and a sync.
"""


class Child:
    """A process that calls `do(*arguments)` with its home in `home` and one thread.

    Parameters
    ----------
    die : the number of the step before which it is killed, from 1 on; 0 for never
    room : the bytes that it can write before the disk is full; None for as many as it likes
    """

    def __init__(self, do: Callable, *arguments, home: Path, die: int = 0, room: int | None = None):
        self.answer, theirs = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=_main, args=(do, arguments, str(home), die, room, theirs))
        self.process.start()
        theirs.close()

    def end(self) -> tuple[list[str], object] | None:
        """Its steps, and what `do` returned; None if it was killed."""
        try:
            done = self.answer.recv()
        except EOFError:
            done = None
        self.process.join()
        self.answer.close()
        assert self.process.exitcode == (0 if done else -signal.SIGKILL)
        return done


def _main(do, arguments, home, die, room, answer):
    import torch

    torch.set_num_threads(1)
    os.environ["LWNB_HOME"] = home
    steps = _watch(home, die, sys.maxsize if room is None else room)
    result = do(*arguments)
    answer.send((list(steps), result))


def _watch(home: str, die: int, room: int) -> list[str]:
    """Count the steps of this process from now on, and end it before step number `die`."""
    steps, written = [], [0]

    def step(kind: str) -> None:
        steps.append(kind)
        if len(steps) == die:
            os.kill(os.getpid(), signal.SIGKILL)

    class Torn(io.BufferedWriter):
        whole = True

        def write(self, content) -> int:
            written[0] += len(content)
            if written[0] > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self.whole:
                self.whole, half = False, len(content) // 2
                super().write(content[:half])
                self.flush()
                step("write")
                return half + super().write(content[half:])
            return super().write(content)

    usual, fsync = io.open, os.fsync

    def opened(file, mode="r", *more, **options):
        if mode == "wb" and str(file).startswith(home):
            return Torn(io.FileIO(file, "wb"))
        return usual(file, mode, *more, **options)

    def synced(handle) -> None:
        step("fsync")
        fsync(handle)

    io.open, os.fsync = opened, synced  # pathlib opens by io.open
    sys.addaudithook(lambda event, values: _is_step(event, values, home) and step(event))
    return steps


def _is_step(event: str, values: tuple, home: str) -> bool:
    if event not in EVENTS:
        return False
    if event == "open":
        return str(values[0]).startswith(home) and bool(values[2] & (os.O_WRONLY | os.O_RDWR))
    within = isinstance(values[-1], int) and values[-1] >= 0  # named within an open folder: shutil.rmtree
    return within or str(values[0]).startswith(home)


# --- What children do ---


def batch(runs: list, hook: Callable | None = None) -> list[tuple[str, str]]:
    """Status and reason of each run, trained in this process."""
    from lwnb.batch import grid
    from lwnb.training import train

    if hook:
        train.train = hook(train.train)
    table = grid.ensure(runs, workers=1)
    return list(zip(table["status"], table["reason"].fillna(""), strict=True))


def counted(train: Callable) -> Callable:
    """Leave a line in the home for each run that is trained, and take a while, so that others come meanwhile."""

    def one(run, *more, **options):
        with open(Path(os.environ["LWNB_HOME"], "trainings"), "a") as file:
            file.write(f"{run.key}\n")
        return train(run, *more, **options)

    return one


def publish() -> int:
    """Publish all records; how many were copied."""
    from lwnb.records import publishing, results

    return len(publishing.publish_runs(results.every()))


def store(run, files: dict[str, bytes]) -> None:
    """Write a record."""
    from lwnb.records import results

    results.store(run, files)


def load() -> str:
    """Read digits; its cache, which Rust writes, is written again in steps that can be seen. Its digest."""
    from lwnb.data import sets
    from lwnb.plan.run import Source

    usual = sets.save_file

    def save_file(tensors, file, *more):
        usual(tensors, file, *more)
        file.write_bytes(file.read_bytes())

    sets.save_file = save_file
    return sets.load(Source(dataset="digits")).digest


def build(source: Path, html: Path) -> None:
    """Build a book, with a program in place of Jupyter Book that copies the one source into two pages."""
    from lwnb.report import book

    def copy(arguments: list, log: Path) -> None:
        made = arguments[arguments.index("--path-output") + 1] / "_build" / "html"
        made.mkdir(parents=True)
        for name in ("index.html", "other.html"):
            (made / name).write_bytes((arguments[0] / "text").read_bytes())

    book._jupyter_book = copy
    book.build(source, html)


def report(notebooks: list[Path], out: Path) -> list[str]:
    """Make a report without its HTML; the lines of its progress."""
    from lwnb.report import book
    from lwnb.report.execution import Page

    lines = []
    book.build = lambda source, html: html
    book.report([Page("one", "One", {})], lambda *_: "records", out, notebooks, progress=lines.append)
    return lines
