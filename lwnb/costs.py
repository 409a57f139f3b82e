"""Save and load what a network costs: device records and footprints; see `lwnb.params.shelves`."""

import hashlib
import json
from pathlib import Path

from lwnb import disk
from lwnb.params import Run, home, shelves

SHAPE = ("model", "num_classes", "image_size", "output_stride")
"""What a cost belongs to, wherever it is measured."""


def shape(run: Run, num_classes: int) -> dict:
    """`SHAPE` of a run's network."""
    return {"model": run.model, "num_classes": num_classes} | {name: getattr(run, name) for name in SHAPE[2:]}


def timing_name(setting: dict) -> str:
    """The name of a device record: readable parts, then a hash of the whole setting (see `lwnb.devices.setting`)."""
    digest = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:12]
    parts = f"{setting['image_size']}px-{setting['runtime']}-{setting['precision']}-{setting['threads']}t"
    return f"{setting['model']}-{parts}-{digest}"


def save_timing(record: dict) -> None:
    """Keep a device record, `{"setting": …, "samples_ms": …, …}`, under `runs/devices/`; see `lwnb.devices`."""
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
    """Keep what `lwnb.deploy.footprint` found for a network's shape; it holds on every machine."""
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


def publish() -> int:
    """Copy the device records and footprints of `runs/` to `results/` of the home; how many."""
    files = [file for kind in ("devices", "footprints") for file in (home() / "runs" / kind).glob("*.json")]
    for file in files:
        disk.write(home() / "results" / file.parent.name / file.name, file.read_bytes())
    return len(files)
