"""Where the time of one run by this project goes: python -m benchmarks.profile --help"""

import contextlib
import functools
import os
import sys
import time
from collections import defaultdict
from typing import Annotated

import pandas as pd
import psutil
import typer

from benchmarks import plan, store
from lwnb.base.places import home

BEGAN = psutil.Process().create_time()


class Clock:
    """Seconds by name, each without what ran inside it under another name."""

    def __init__(self, first: str, began: float):
        self.seconds, self.calls = defaultdict(float), defaultdict(int)
        self.open, self.last = [first], began
        self.calls[first] = 1

    def turn(self) -> None:
        """Book the time since the last turn under the innermost name."""
        now = time.time()
        self.seconds[self.open[-1]] += now - self.last
        self.last = now

    @contextlib.contextmanager
    def within(self, name: str):
        self.turn()
        self.open.append(name)
        self.calls[name] += 1
        try:
            yield
        finally:
            self.turn()
            self.open.pop()

    def wrap(self, owner, attribute: str, name: str) -> None:
        """Book every call of a function or method under a name."""
        inner = getattr(owner, attribute)

        @functools.wraps(inner)
        def timed(*args, **options):
            with self.within(name):
                return inner(*args, **options)

        setattr(owner, attribute, timed)


def watch(clock: Clock) -> None:
    """Time the parts of a run; what is left inside the fit is Lightning's, and the rest is the run's own."""
    import lightning
    import torch
    from lightning.pytorch.strategies import Strategy

    from lwnb.data import sets
    from lwnb.networks import build, counts, preprocessing
    from lwnb.records import results
    from lwnb.training import augment, evaluation

    clock.wrap(sets, "task", "images: read, split")
    clock.wrap(build, "build", "network: build")
    clock.wrap(lightning.Trainer, "fit", "Lightning's loop")
    clock.wrap(Strategy, "training_step", "forward and loss")
    clock.wrap(preprocessing, "resize", "augmentation: resize")
    clock.wrap(augment, "augment", "augmentation: crop, flip, normalise")
    clock.wrap(Strategy, "backward", "backward")
    clock.wrap(torch.optim.AdamW, "step", "optimiser")
    clock.wrap(torch.optim.SGD, "step", "optimiser")
    clock.wrap(evaluation, "evaluate", "evaluation: each epoch, and all splits at the end")
    clock.wrap(Strategy, "save_checkpoint", "checkpoint each epoch")
    clock.wrap(evaluation, "rates", "metrics at the end")
    clock.wrap(counts, "cost", "parameters and MACs")
    clock.wrap(results, "save", "record")


def shares(clock: Clock) -> pd.DataFrame:
    """Seconds, share of the whole in percent and number of calls of each name, the longest first."""
    rows = [{"what": name, "s": s, "share_%": 100 * s, "calls": clock.calls[name]} for name, s in clock.seconds.items()]
    table = pd.DataFrame(rows).sort_values("s", ascending=False, ignore_index=True)
    table["share_%"] /= table["s"].sum()
    return table.round({"s": 2, "share_%": 1})


def main(
    model: str = "mobilenet_v3_small",
    page: Annotated[str, typer.Option(help="A page: a file of params/, or a path to one.")] = "digits",
    data_root: str | None = None,
    epochs: int = 0,
    train_size: int | None = None,
    batch_size: int | None = None,
    precision: str = "fp32",
    operators: Annotated[int, typer.Option(help="Also list so many operators by torch.profiler, which slows all.")] = 0,
) -> None:
    """Train one run in a home of its own and print where its time went, from the start of Python to the record."""
    size = {"train_size": train_size, "batch_size": batch_size}
    given = {"epochs": epochs} if epochs else {}
    run = plan.run_of(plan.page_of(page, data_root, **size), model, precision=precision, **given)
    with store.fresh_home(home() / "build" / "bench") as place:
        os.environ["LWNB_HOME"] = str(place)
        clock = Clock("Python's start and imports", BEGAN)
        from lwnb.batch import grid
        from lwnb.records import failures, results

        watch(clock)
        from torch.profiler import profile

        with clock.within("the run's own rest"), profile() if operators else contextlib.nullcontext() as seen:
            grid.ensure([run], workers=1)
        if not results.find(run):
            sys.exit(failures.failure(run)["traceback"])
    print(f"{model}, {precision}, {page}, {run.epochs} epochs\n\n{shares(clock).to_string(index=False)}")
    if operators:
        print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=operators))


if __name__ == "__main__":
    typer.run(main)
