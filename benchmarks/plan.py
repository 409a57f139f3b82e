"""Which jobs the benchmark consists of, in the order in which they run."""

import os
from pathlib import Path
from typing import NamedTuple

from lwnb.plan import paramfiles, studies
from lwnb.plan.facts import FIVE
from lwnb.plan.params import Params
from lwnb.plan.run import Run

DIGITS = {"train_size": 0, "batch_size": 32}
OTHERS = {"train_size": 10000, "test_size": 0, "batch_size": 128}
"""What is trained where the command line does not say, on digits and on other pages."""

EPOCHS = {
    "mobilenet_v3_small": (10, 12),
    "resnet18": (6, 5),
    "squeezenet1_1": (40, 12),
    "efficientnet_v2_s": (8, 3),
    "shufflenet_v2_x1_0": (14, 8),
}
"""Where the command line does not say: until the network has learned the digits; on other pages,
what an hour or two allow."""

CHEAP = ("mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x1_0")
"""Networks that are trained with five seeds; the others with three."""

BF16 = ("resnet18", "squeezenet1_1")
"""Networks that bf16 makes faster on an AMD EPYC; it slows the depthwise ones, and on an Intel Xeon whose peak in bf16
is half of that in fp32 it slows these, too (python -m benchmarks.engine --precisions fp32,bf16)."""

SIDES = ("script", "script-tuned", "timm", "lightning", "lwnb", "lwnb-bf16")
PARTS = ("compare", "grid", "images", "size", "batch", "workers")
CORES = os.cpu_count() or 1

GROWTH = {
    "images": [{"train_size": n} for n in (1000, 10000, 50000)],
    "size": [{"train_size": 1000, "image_size": side} for side in (32, 64, 128)],
    "batch": [{"train_size": 4000, "batch_size": size} for size in (16, 64, 256)],
}
"""How cost grows: one epoch on noise, for what a step costs does not depend on what the images show."""


def page_of(name: str, data_root: str | None, **changes) -> Params:
    """The parameters of a page under this benchmark's protocol; changes that are None stay as they are there."""
    given = {"data_root": data_root and str(Path(data_root).resolve())} | changes
    protocol = DIGITS if name == "digits" else OTHERS
    return paramfiles.read(*paramfiles.files_of(name), **protocol | {k: v for k, v in given.items() if v is not None})


def run_of(page: Params, model: str, seed: int = 0, **changes) -> Run:
    """The page's run. All sides keep the last epoch's weights; the seed decides weights and order, not the split."""
    epochs = EPOCHS.get(model, (10, 10))[page.dataset != "digits"]
    fixed = {"split_seed": 0, "select": "last", "patience": 0}
    return studies.base(page, seed, **{"model": model, "epochs": epochs} | fixed | changes)


RUNS = (2, 12)
"""How many runs the part `workers` has: what one more run costs is the slope between the two."""


class Wish(NamedTuple):
    """What was asked for on the command line; 0 is the default of each network."""

    page: Params
    models: list[str]
    sides: list[str]
    parts: list[str]
    seeds: int = 0
    epochs: int = 0
    repeats: int = 2  # of each job that shows how cost grows

    def seeds_of(self, model: str, side: str = "script") -> int:
        """Five of the cheap networks and three of the others for the two sides whose accuracies are compared."""
        return self.seeds or (2 if side not in ("script", "lwnb") else 5 if model in CHEAP else 3)

    def run(self, model: str, seed: int = 0, **changes) -> Run:
        """The page's run with its number of epochs."""
        return run_of(self.page, model, seed, **{"epochs": self.epochs} if self.epochs else {}, **changes)


def jobs(wish: Wish) -> list[dict]:
    """All jobs: first what the machine can do, then seed by seed the sides in turn, then how cost grows."""
    compared, grids = compare(wish), grid(wish)
    packages = ["torch", "torchvision", "lightning"] + ["timm"] * ("timm" in wish.sides)
    ordered = [_job("machine", [wish.run(FIVE[0])], wish, models=wish.models, packages=packages)]
    for turn in range(max(map(wish.seeds_of, wish.models))):
        ordered += [job for job in compared if "compare" in wish.parts and job["runs"][0]["seed"] == turn]
        ordered += [job for job in grids if "grid" in wish.parts and job["repeat"] == turn]
    for part in wish.parts:
        ordered += growth(wish, part) if part in GROWTH else workers(wish) if part == "workers" else []
    return ordered


def compare(wish: Wish) -> list[dict]:
    """Each network and seed by each side, a side later in turn with each seed, so that none always comes first."""
    found = []
    for seed in range(max(map(wish.seeds_of, wish.models))):
        first = seed % len(wish.sides)
        for model in (model for model in wish.models if seed < wish.seeds_of(model)):
            for side in wish.sides[first:] + wish.sides[:first]:
                if seed < wish.seeds_of(model, side) and (side != "lwnb-bf16" or model in BF16):
                    precision = {"precision": "bf16" if side == "lwnb-bf16" else "fp32"}
                    found.append(_job("compare", [wish.run(model, seed, **precision)], wish, side=side))
    return found


def grid(wish: Wish) -> list[dict]:
    """All networks with two seeds by local workers, one a core."""
    runs = [wish.run(model, seed) for seed in (0, 1) for model in wish.models]
    return [_job("grid", runs, wish, workers=CORES, repeat=n) for n in range(min(2, wish.repeats))]


def growth(wish: Wish, part: str) -> list[dict]:
    """The first network by script and by this project, as one thing grows."""
    plain = {"epochs": 1, "warmup_epochs": 0.0, "batch_size": 128, "image_size": 32, "test_size": 0}
    run = wish.run(wish.models[0])
    return [
        _job(part, [run.model_copy(update=plain | change)], wish, side=side, synthetic=True, repeat=repeat)
        for repeat in range(wish.repeats)
        for change in GROWTH[part]
        for side in ("script", "lwnb")[:: (-1) ** repeat]
    ]


def workers(wish: Wish) -> list[dict]:
    """Few and more short runs of the first network, by one worker with one thread, with all, and by a worker a core."""
    runs = [wish.run(wish.models[0], seed).model_copy(update={"epochs": 3}) for seed in range(max(RUNS))]
    return [
        _job("workers", runs[:count], wish, workers=number, threads=threads, repeat=repeat)
        for repeat in range(wish.repeats)
        for number, threads in ((1, 1), (1, CORES), (CORES, 1))
        for count in RUNS
    ]


def _job(part: str, runs: list[Run], wish: Wish, synthetic: bool = False, **more) -> dict:
    source = studies.source(wish.page).model_dump()
    return {"part": part, "runs": [run.model_dump() for run in runs], "source": source, "synthetic": synthetic} | more
