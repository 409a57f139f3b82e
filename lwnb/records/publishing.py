"""Copy records to `results/`, where they are committed."""

import shutil
from pathlib import Path

from filelock import FileLock

from lwnb.base import disk
from lwnb.base.errors import ParamsError
from lwnb.base.places import home, shelves
from lwnb.records import folders, results
from lwnb.records.folders import CONVERSIONS, FILES, WEIGHTS
from lwnb.records.results import Record


def publish_runs(records: list[Record], weights: bool = False) -> list[Path]:
    """Copy records from `runs/` to `results/` of the home; those that are there, or published elsewhere,
    stay as they are.

    Parameters
    ----------
    weights : with their weights in half precision, also beside a record that is there without

    Raises
    ------
    ParamsError
        Weights are wanted of a run that has none on this machine.
    """
    copied = []
    disk.make(home() / "runs")
    with FileLock(home() / "runs" / "publish.lock"):  # not in results/, which is committed
        for record in records:
            target = folders.folder(record.run, "results")
            if _elsewhere(record, weights):
                continue
            if not (target / "metrics.json").exists():
                aside = target.with_name(f"{target.name}.part")
                shutil.rmtree(aside, ignore_errors=True)
                for name in FILES:
                    disk.write(aside / name, (record.folder / name).read_bytes())
                copied.append(results.place(aside, target))
            if weights and not (target / WEIGHTS).exists():
                if not record.weights:
                    raise ParamsError(f"run {record.run.key}: its weights are not on this machine; train it here first")
                disk.write(target / WEIGHTS, _half(record.weights))
            if record.conversions and not record.published:
                disk.write(target / CONVERSIONS, (record.folder / CONVERSIONS).read_bytes())
    return copied


def _elsewhere(record: Record, weights: bool) -> bool:
    """Whether all that `publish` would copy of it stands among the published records of another home."""
    names = ["metrics.json", *[WEIGHTS] * weights, *[CONVERSIONS] * bool(record.conversions)]
    return any(all((place / folders.inside(record.run) / name).exists() for name in names) for place in shelves()[2:])


def _half(file: Path) -> bytes:
    """The tensors of a safetensors file in half precision, as such a file."""
    from safetensors.numpy import load_file, save

    return save({name: t.astype("float16") if t.dtype == "float32" else t for name, t in load_file(file).items()})


def publish_costs() -> int:
    """Copy the device records and footprints of `runs/` to `results/` of the home; how many."""
    files = [file for kind in ("devices", "footprints") for file in (home() / "runs" / kind).glob("*.json")]
    for file in files:
        disk.write(home() / "results" / file.parent.name / file.name, file.read_bytes())
    return len(files)
