"""What networks cost on devices: the cells to measure, the protocol, and the table of all device records."""

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from lwnb import costs, disk, results, runtimes
from lwnb.clock import BUSY
from lwnb.params import CHECKOUT, Params, ParamsError, Run, home
from lwnb.runtimes import PYTORCH, Cell

MIN_CALLS, MIN_SECONDS = 100, 0.5
"""Calls of one process after its warm-up, and how long they must take; `LARGE_CALLS` at a larger batch."""

LARGE, LARGE_CALLS = 16, 10
"""Images a batch for throughput, and its calls."""

REPEATS = 5
"""How often the same cell is measured to see how steady the protocol is."""


def usable(p: Params) -> list[str]:
    """The runtimes of a page that are installed here."""
    return [runtime for runtime in p.runtimes if not runtimes.absent(runtime)]


def require(wanted: Iterable[str]) -> None:
    """Refuse a runtime that is not installed.

    Raises
    ------
    ParamsError
        What is missing, and what to install.
    """
    for runtime in wanted:
        if gone := runtimes.absent(runtime):
            extra = "openvino" if gone == ["openvino"] else "edge"
            raise ParamsError(
                f'{runtime} needs {", ".join(gone)}: not installed here; try: pip install "lwnb[{extra}]"'
            )


def cells(p: Params) -> list[Cell]:
    """The cells of a page: each network by eager PyTorch, and by each runtime that is installed in fp32 and INT8.

    One image on one thread; with `device_rounds` above 2 also on all cores, and a larger batch there. The first network
    is measured `REPEATS` times by each runtime, and with more than one round also by eager PyTorch.
    """
    networks = shapes(p)
    ways = [(PYTORCH, "fp32"), *itertools.product(usable(p), ("fp32", "int8"))]
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


def eager(run: Run, num_classes: int, threads: int = 1) -> Cell:
    """The cell of a run's network by eager PyTorch."""
    return Cell(run.model, num_classes, run.image_size, run.output_stride, threads=threads)


def setting(cell: Cell) -> dict:
    """What a timing belongs to: this machine, the runtime's version, and the cell."""
    return {"machine": results.machine(), "runtime_version": version(runtimes.NEEDS[cell.runtime][0])} | cell._asdict()


def missing(wanted: Iterable[Cell], rounds: int) -> list[Cell]:
    """The cells that have no record of this machine by so many processes."""
    found = {cell: costs.find_timing(setting(cell)) for cell in wanted}
    return [cell for cell, record in found.items() if not record or len(record["processes"]) < rounds]


def ensure(wanted: Iterable[Cell], rounds: int, progress: Callable[[str], None] = lambda line: None) -> None:
    """Measure what has no record of this machine; never beside training.

    Every cell is measured by `rounds` fresh processes; the cells of one use (threads, batch size, image size) take turns.
    Files are exported before any of them is timed, and stay in `build/deploy/`.

    Raises
    ------
    ParamsError
        A runtime is not installed.
    RuntimeError
        A process failed: the end of what it said.
    """
    todo = missing(wanted, rounds)
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
    if cell.runtime == PYTORCH:
        return order
    place = home() / "build" / "deploy"
    if not (file := runtimes.file_of(cell, place)).exists():
        from lwnb import deploy  # torch: only when there is something to export

        deploy.any_file(cell, place)
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
    command = [sys.executable, "-m", "lwnb.runtimes", json.dumps(order)]
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


def shapes(p: Params) -> list[Cell]:
    """The cell of each of a page's networks by eager PyTorch."""
    return [Cell(model, p.num_classes, p.image_size, p.output_stride) for model in p.models]


# --- Tables ---


def table() -> pd.DataFrame:
    """A row a device record, of this machine and of others: its setting, and what its samples come to.

    `latency_ms` is the median over all samples of all processes, with `p90_ms` and `p99_ms`; `images_per_s` the batch size
    over the median; memory is the median over processes, in MiB above the runtime's own; `busy` marks a machine that
    others used meanwhile. `repeat` above 0 is the same cell again: see `noise`. The newest come last, so that of two versions
    of a runtime the last one counts where one row is taken.
    """
    frame = pd.DataFrame([_row(record) for record in costs.timings()], columns=list(COLUMNS))
    return frame.sort_values("started", kind="stable", ignore_index=True)


COLUMNS = (
    "device", "runtime", "runtime_version", "precision", "threads", "batch_size", "model", "num_classes", "image_size",
    "output_stride", "repeat", "latency_ms", "p90_ms", "p99_ms", "images_per_s", "calls", "processes", "load_mib",
    "run_mib", "peak_mib", "size_bytes", "busy", "started",
)  # fmt: skip


def _row(record: dict) -> dict:
    about, parts = record["setting"], record["processes"]
    samples = pd.Series([sample for part in record["samples_ms"] for sample in part])
    row = {column: about[column] for column in COLUMNS if column in about}
    row |= {
        "device": results.device(about["machine"]),
        "repeat": about.get("repeat", 0),
        "size_bytes": record["size_bytes"],
    }
    row |= {"latency_ms": samples.median(), "p90_ms": samples.quantile(0.9), "p99_ms": samples.quantile(0.99)}
    row |= {"images_per_s": 1000 * about["batch_size"] / row["latency_ms"], "calls": len(samples)}
    for column in ("load_mib", "run_mib", "peak_mib"):
        known = [part[column] for part in parts if column in part]
        row[column] = statistics.median(known) if known else None
    busy = any(part["other_load"] > BUSY for part in parts)
    return row | {"processes": len(parts), "busy": busy, "started": parts[0]["started"]}


def of_page(p: Params, frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """The rows of a page's networks at its image size, stride and number of classes, on every device."""
    frame = table() if frame is None else frame
    same = (frame["num_classes"] == p.num_classes) & (frame["image_size"] == p.image_size)
    return frame[same & (frame["output_stride"] == p.output_stride) & frame["model"].isin(p.models)]


def noise(frame: pd.DataFrame) -> pd.DataFrame:
    """How far the median moves when the same cell is measured again: (highest - lowest) / median, for each device, runtime.

    Where several cells were repeated, the largest counts.
    """
    by = [
        "device",
        "runtime",
        "precision",
        "threads",
        "batch_size",
        "model",
        "num_classes",
        "image_size",
        "output_stride",
    ]
    groups = frame.groupby(by)["latency_ms"]
    spread = ((groups.max() - groups.min()) / groups.median()).rename("noise")
    repeated = spread[groups.size() >= REPEATS].reset_index()
    return repeated.groupby(["device", "runtime"])["noise"].max().reset_index()


def here(frame: pd.DataFrame) -> str:
    """The device that a page speaks of: this machine if it has records there, else the one with the most."""
    own = results.device(results.machine())
    return own if frame.empty or (frame["device"] == own).any() else most(frame)


def most(frame: pd.DataFrame) -> str | None:
    """The device with the most records, the same on every machine; None without any."""
    return next(iter(frame["device"].mode()), None)


def single(frame: pd.DataFrame, device: str) -> pd.DataFrame:
    """The rows of a device for one image at a time on one thread, each cell once."""
    one = (frame["threads"] == 1) & (frame["batch_size"] == 1) & (frame["repeat"] == 0)
    return frame[(frame["device"] == device) & one]


def wide(frame: pd.DataFrame, device: str) -> pd.DataFrame:
    """A row a network, a column each runtime and precision (`onnxruntime int8`): median latency in ms, see `single`."""
    own = single(frame, device)
    ways = own["runtime"] + " " + own["precision"]
    return own.assign(way=ways).pivot_table(index="model", columns="way", values="latency_ms", aggfunc="last")


def levelled(values: pd.Series, noise: float) -> pd.Series:
    """The values, those that lie within the noise of a lower one made equal to it: what cannot be told apart."""
    found, low = {}, None
    for key, value in values.sort_values().items():
        low = low if low is not None and value <= low * (1 + noise) else value
        found[key] = low
    return pd.Series(found).reindex(values.index)


def latencies(runs: list[Run]) -> pd.DataFrame:
    """What one image takes by eager PyTorch on one device: this one, or for published runs the one with the most records.

    `lwnb.exports.time_eager` measures what has no record yet.

    Returns
    -------
    A row a run: `key`, `device`, `latency_ms` and, where measured, `latency_2_threads_ms`, medians; nan without a record
    """
    records = [record for record in map(results.find, runs) if record]
    known = [{"key": r.run.key} | costs.shape(r.run, r.metrics["num_classes"]) for r in records]
    frame = table()
    frame = frame[(frame["runtime"] == PYTORCH) & (frame["batch_size"] == 1) & (frame["repeat"] == 0)]
    frame = pd.DataFrame(known, columns=["key", *costs.SHAPE]).merge(frame, on=list(costs.SHAPE))
    frame = frame[frame["device"] == here(frame)]
    found = pd.DataFrame({"key": [run.key for run in runs]})
    for threads, column in ((1, "latency_ms"), (2, "latency_2_threads_ms")):
        some = frame[frame["threads"] == threads].drop_duplicates("key", keep="last")
        if threads == 1 or len(some):
            found[column] = found["key"].map(some.set_index("key")["latency_ms"])
    return found.assign(device=found["key"].map(frame.drop_duplicates("key").set_index("key")["device"]))


# --- Other machines ---


def pack(file: Path) -> int:
    """Write this machine's records into one file for another machine; how many."""
    here = [record for record in costs.timings() if record["setting"]["machine"] == results.machine()]
    disk.write(file, json.dumps({"lwnb_device_records": 1, "records": here}).encode())
    return len(here)


def unpack(file: Path) -> tuple[int, set[str]]:
    """Bring in the records of another machine; how many, and the devices.

    Raises
    ------
    ParamsError
        The file is not one of `pack`, or one of its records lacks something: nothing of it is taken.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        records = content["records"] if content["lwnb_device_records"] == 1 else []
        rows = [_row(record) for record in records]
        names = [costs.timing_name(record["setting"]) for record in records]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ParamsError(
            f"{file}: no file of device records ({type(error).__name__}: {error}); make one there with: "
            "lwnb measure --export FILE"
        ) from None
    for record, _ in zip(records, names, strict=True):
        costs.save_timing(record)
    return len(records), {row["device"] for row in rows}
