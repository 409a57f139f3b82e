"""What a network costs: device records and footprints, saved, found, tabled,
and carried from one machine to another."""

import hashlib
import json
import statistics
from pathlib import Path

import pandas as pd

from lwnb.base import disk
from lwnb.base.errors import ParamsError
from lwnb.base.places import home, shelves
from lwnb.plan.run import Run
from lwnb.records import machine
from lwnb.records.clock import BUSY

SHAPE = ("model", "num_classes", "image_size", "output_stride")
"""What a cost belongs to, wherever it is measured."""


def shape(run: Run, num_classes: int) -> dict:
    """`SHAPE` of a run's network."""
    return {"model": run.model, "num_classes": num_classes} | {name: getattr(run, name) for name in SHAPE[2:]}


def timing_name(setting: dict) -> str:
    """The name of a device record: readable parts, then a hash of the whole setting
    (see `lwnb.edge.protocol.setting`)."""
    digest = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:12]
    parts = f"{setting['image_size']}px-{setting['runtime']}-{setting['precision']}-{setting['threads']}t"
    return f"{setting['model']}-{parts}-{digest}"


def save_timing(record: dict) -> None:
    """Keep a device record, `{"setting": …, "samples_ms": …, …}`, under `runs/devices/`; see `lwnb.edge.protocol`."""
    file = home() / "runs" / "devices" / f"{timing_name(record['setting'])}.json"
    disk.write(file, json.dumps(record, sort_keys=True).encode())


def find_timing(setting: dict) -> dict | None:
    """The device record that belongs to this setting, from the first place that has one."""
    return _first(f"devices/{timing_name(setting)}.json")


def timings() -> list[dict]:
    """All device records, of this machine and of others, each once."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in _files("devices").values()]


def timing_names() -> list[str]:
    """The names of all device records and footprints."""
    return [*_files("devices"), *_files("footprints")]


def save_footprint(shape: dict, found: dict) -> None:
    """Keep what `lwnb.edge.export.footprint` found for a network's shape; it holds on every machine."""
    file = home() / "runs" / "footprints" / _footprint_name(shape)
    disk.write(file, (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())


def find_footprint(shape: dict) -> dict | None:
    """The bytes that are known of a network's shape, from the first place that has them."""
    return _first(f"footprints/{_footprint_name(shape)}")


def _footprint_name(shape: dict) -> str:
    return "{model}-{image_size}px-s{output_stride}-c{num_classes}.json".format(**shape)


def _first(name: str) -> dict | None:
    files = [place / name for place in shelves()]
    return next((json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()), None)


def _files(kind: str) -> dict[str, Path]:
    found = {}
    for place in reversed(shelves()):
        found |= {file.stem: file for file in sorted((place / kind).glob("*.json"))}
    return found


# --- Tables ---


def timings_table() -> pd.DataFrame:
    """A row a device record, of this machine and of others: its setting, and what its samples come to.

    `latency_ms` is the median over all samples of all processes, with `p90_ms` and `p99_ms`; `images_per_s` the batch
    size over the median; memory is the median over processes, in MiB above the runtime's own; `busy` marks a machine
    that others used meanwhile. `repeat` above 0 is the same cell again: see `noise`. The newest come last, so that of
    two versions of a runtime the last one counts where one row is taken.
    """
    frame = pd.DataFrame([_timing_row(record) for record in timings()], columns=list(TIMING_COLUMNS))
    return frame.sort_values("started", kind="stable", ignore_index=True)


TIMING_COLUMNS = (
    "device", "runtime", "runtime_version", "precision", "threads", "batch_size", "model", "num_classes", "image_size",
    "output_stride", "repeat", "latency_ms", "p90_ms", "p99_ms", "images_per_s", "calls", "processes", "load_mib",
    "run_mib", "peak_mib", "size_bytes", "busy", "started",
)  # fmt: skip


def _timing_row(record: dict) -> dict:
    about, parts = record["setting"], record["processes"]
    samples = pd.Series([sample for part in record["samples_ms"] for sample in part])
    row = {column: about[column] for column in TIMING_COLUMNS if column in about}
    row |= {
        "device": machine.device(about["machine"]),
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


# --- Other machines ---


def write_file(file: Path) -> int:
    """Write this machine's records into one file for another machine; how many."""
    here = [record for record in timings() if record["setting"]["machine"] == machine.machine()]
    disk.write(file, json.dumps({"lwnb_device_records": 1, "records": here}).encode())
    return len(here)


def read_file(file: Path) -> tuple[int, set[str]]:
    """Bring in the records of another machine; how many, and the devices.

    Raises
    ------
    ParamsError
        The file is not one of `write_file`, or one of its records lacks something: nothing of it is taken.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        records = content["records"] if content["lwnb_device_records"] == 1 else []
        rows = [_timing_row(record) for record in records]
        names = [timing_name(record["setting"]) for record in records]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        why = f" ({error.strerror})" if isinstance(error, OSError) else ""
        raise ParamsError(
            f"{file}: no file of device records{why}; make one there with: lwnb measure --export FILE"
        ) from None
    for record, _ in zip(records, names, strict=True):
        save_timing(record)
    return len(records), {row["device"] for row in rows}
