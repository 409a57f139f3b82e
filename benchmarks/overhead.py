"""What is not training: python -m benchmarks.overhead

A cached run is loaded, 1,000 runs are planned, a notebook whose runs are all there is executed, batches are augmented.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import typer

from benchmarks import store
from lwnb.base.places import CHECKOUT, home
from lwnb.batch import estimates
from lwnb.plan import paramfiles, run, studies
from lwnb.plan.facts import IMAGENET
from lwnb.records import results

POLICIES = ("flip-crop", "autoaugment", "randaugment", "trivialaugment")


def seconds(do: Callable[[], object], tries: int) -> list[float]:
    """How long each of several calls took, in order."""
    found = []
    for _ in range(tries):
        began = time.perf_counter()
        do()
        found.append(time.perf_counter() - began)
    return found


def load(run: run.Run) -> None:
    """A run asked for again, with all that its record holds."""
    record = results.find(run)
    _ = record.run, record.metrics, record.environment, record.history, record.predictions


def notebook(place: Path) -> Callable[[], object]:
    """A call that executes the architectures of few digits by papermill; the first one trains them."""
    files = [flag for name in ("digits", "budget-quick") for flag in ("-f", paramfiles.file_of(name))]
    small = ["-p", "train_size", "60", "-p", "epochs", "1"]
    inputs = [CHECKOUT / "notebooks" / "01_architectures.ipynb", place / "out.ipynb"]
    command = [sys.executable, "-m", "papermill", *inputs, *files, *small, "--cwd", CHECKOUT, "--no-progress-bar"]
    env = os.environ | {"LWNB_HOME": str(place)}
    return lambda: subprocess.run(list(map(str, command)), check=True, env=env, capture_output=True)


def augmenting(policy: str, images: int = 128, tries: int = 100) -> list[float]:
    """Images a second of each of many batches of noise of 32 px, on one thread."""
    import torch

    from lwnb.training.augment import augment

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.zeros(images, dtype=torch.long)
    return [images / took for took in seconds(lambda: augment(policy, batch, labels, 10, generator, IMAGENET), tries)]


def main() -> None:
    """Print one line for each: the median, the lowest and the highest of several tries."""
    page = paramfiles.read(*paramfiles.files_of("digits"), seeds=200)
    planned = studies.architectures(page)
    with store.fresh_home(home() / "build" / "bench") as place:
        execute = notebook(place)
        execute()
        _line("a notebook whose runs are cached, by papermill with its kernel", "s", seconds(execute, 5))
        os.environ["LWNB_HOME"] = str(place)
        (run, *_) = (record.run for record in results.every())
        _line("a cached run, loaded", "ms", [1000 * took for took in seconds(lambda: load(run), 100)])
        _line(f"{len(planned):,} runs, planned", "s", seconds(lambda: estimates.plan_table(planned), 5))
    for policy in POLICIES:
        _line(f"{policy} and normalising, one core", "images/s", augmenting(policy))


def _line(what: str, unit: str, found: list[float]) -> None:
    middle, low, high = (
        f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in (statistics.median(found), min(found), max(found))
    )
    print(f"{what}: {middle} {unit} [{low}, {high}], {len(found)} tries")


if __name__ == "__main__":
    typer.run(main)
