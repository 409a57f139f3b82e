"""The measuring protocol: which cells a page has, and how each is timed by fresh processes that take turns."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from lwnb.base import doors
from lwnb.base.errors import ParamsError
from lwnb.base.places import CHECKOUT, home
from lwnb.edge import runtimes
from lwnb.evidence import deployed
from lwnb.evidence.deployed import REPEATS
from lwnb.plan import facts
from lwnb.plan.facts import PYTORCH, Cell
from lwnb.plan.params import Params
from lwnb.records import costs, machine

MIN_CALLS, MIN_SECONDS = 100, 0.5
"""Calls of one process after its warm-up, and how long they must take; `LARGE_CALLS` at a larger batch."""

LARGE, LARGE_CALLS = 16, 10
"""Images a batch for throughput, and its calls."""


def usable(p: Params) -> list[str]:
    """The runtimes of a page that are installed here."""
    return [runtime for runtime in p.runtimes if not runtimes.absent(*runtimes.rows(runtime))]


def require(wanted: Iterable[str]) -> None:
    """Refuse a runtime that is not installed.

    Raises
    ------
    ParamsError
        What is missing, and what to install.
    """
    for runtime in wanted:
        _require(runtime, *runtimes.rows(runtime))


def require_format(form: str) -> None:
    """Refuse a format of files that is not known, or that cannot be written here.

    Raises
    ------
    ParamsError
        The formats that there are; or what is missing, and what to install.
    """
    _require(form, doors.known(form, facts.FORMATS, "format"))


def _require(name: str, *rows: facts.Runtime | facts.Format) -> None:
    if gone := runtimes.absent(*rows):
        extras = ",".join(sorted(set(filter(None, gone.values()))))
        own = [package for package, extra in gone.items() if not extra]
        install = " ".join([f'"lwnb[{extras}]"'] * bool(extras) + own)
        raise ParamsError(f"{name} needs {', '.join(gone)}: not installed here; try: pip install {install}")


def cells(p: Params) -> list[Cell]:
    """The cells of a page: each network by eager PyTorch, and by each runtime that is installed in its precisions.

    One image on one thread; with `device_rounds` above 2 also on all cores, and a larger batch there. The first network
    is measured `REPEATS` times by each runtime, and with more than one round also by eager PyTorch.
    """
    networks = deployed.shapes(p)
    known = [PYTORCH, *usable(p)]
    ways = [(runtime, precision) for runtime in known for precision in facts.RUNTIMES[runtime].precisions]
    cores = os.cpu_count() or 1
    uses = [(1, 1), *([(cores, 1)] if cores > 1 else []), (cores, LARGE)] if p.device_rounds > 2 else [(1, 1)]
    found = [
        network._replace(runtime=runtime, precision=precision, threads=threads, batch_size=batch)
        for threads, batch in uses
        for runtime, precision in ways
        for network in networks
    ]
    repeated = [PYTORCH] * (p.device_rounds > 1) + usable(p)
    return found + [networks[0]._replace(runtime=r, repeat=n) for r in repeated for n in range(1, REPEATS)]


def setting(cell: Cell) -> dict:
    """What a timing belongs to: this machine, the runtime's version, and the cell."""
    package = facts.RUNTIMES[cell.runtime].needs[0]
    return {"machine": machine.machine(), "runtime_version": version(package)} | cell._asdict()


def unmeasured(wanted: Iterable[Cell], rounds: int) -> list[Cell]:
    """The cells that have no record of this machine by so many processes."""
    found = {cell: costs.find_timing(setting(cell)) for cell in wanted}
    return [cell for cell, record in found.items() if not record or len(record["processes"]) < rounds]


def measure_cells(wanted: Iterable[Cell], rounds: int, progress: Callable[[str], None] = lambda line: None) -> None:
    """Measure what has no record of this machine; never beside training.

    Every cell is measured by `rounds` fresh processes; the cells of one use (threads, batch size, image size) take
    turns. Files are exported before any of them is timed, and stay in `build/deploy/`.

    Raises
    ------
    ParamsError
        A runtime is not installed.
    RuntimeError
        A process failed: the end of what it said.
    """
    todo = unmeasured(wanted, rounds)
    require(sorted({cell.runtime for cell in todo}))

    def use(cell: Cell) -> tuple:
        return cell.image_size, cell.num_classes, cell.output_stride, cell.batch_size, cell.threads

    for _, some in itertools.groupby(sorted(todo, key=use), key=use):
        _take_turns(list(some), rounds, progress)


def _take_turns(group: list[Cell], rounds: int, progress: Callable[[str], None]) -> None:
    orders = [_order(cell) for cell in group]
    taken: list[list[dict]] = [[] for _ in group]
    for turn in range(rounds):
        for part, parts in zip(_processes(orders), taken, strict=True):
            parts.append(part)
        progress(f"round {turn + 1} of {rounds}: {len(group)} cells at {group[0].image_size} px measured")
    for cell, order, parts in zip(group, orders, taken, strict=True):
        samples = [part.pop("samples_ms") for part in parts]
        size = Path(order["file"]).stat().st_size if "file" in order else None
        costs.save_timing({"setting": setting(cell), "samples_ms": samples, "size_bytes": size, "processes": parts})


def _order(cell: Cell) -> dict:
    """What a process is told: the cell, its file, and how long to go on."""
    least = {"min_calls": MIN_CALLS if cell.batch_size == 1 else LARGE_CALLS, "min_seconds": MIN_SECONDS}
    order = cell._asdict() | least
    if not facts.RUNTIMES[cell.runtime].form:
        return order
    place = home() / "build" / "deploy"
    if not (file := runtimes.file_of(cell, place)).exists():
        from lwnb.edge import export  # torch: only when there is something to export

        export.any_file(cell, place)
    return order | {"file": str(file)}


def _processes(orders: list[dict]) -> Iterator[dict]:
    """Measure each in a process of its own, one after the other.

    As many as there are cores import their runtimes side by side, before the first of them is measured.
    """
    cores = os.cpu_count() or 1
    for first in range(0, len(orders), cores):
        some = orders[first : first + cores]
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(_started(order)) for order in some]
            for process in started:
                process.stdout.readline()
            yield from [_measured(process, order) for process, order in zip(started, some, strict=True)]


@contextlib.contextmanager
def _started(order: dict) -> Iterator[subprocess.Popen]:
    """A process that imports its runtime and then waits; it does not outlive the block."""
    command = [sys.executable, "-m", "lwnb.edge.runtimes", json.dumps(order)]
    env = os.environ | {"OMP_NUM_THREADS": str(order["threads"])}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=CHECKOUT, env=env, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def _measured(process: subprocess.Popen, order: dict) -> dict:
    said, error = process.communicate("\n")
    if process.returncode:
        what = f"{order['model']} at {order['image_size']} px on {order['runtime']}, {order['precision']}"
        raise RuntimeError(f"{what}: its process ended with status {process.returncode}:\n{error[-2000:]}")
    return json.loads(said.splitlines()[-1])
