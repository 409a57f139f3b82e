"""Which settings train a network fastest on this machine: python -m benchmarks.engine --help

Memory format x optimiser x allocator x threads, one fresh process a cell, the repeats one after another over all cells.
A step is forward, backward and optimiser on one fixed batch, in deterministic mode as in `lwnb.training.train`.
"""

import itertools
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Annotated

import pandas as pd
import typer

from benchmarks import store
from lwnb.base.places import home
from lwnb.plan.facts import FIVE

CORES = os.cpu_count() or 1
AXES = {
    "format": ("channels_last", "contiguous"),
    "optimiser": ("fused", "default"),
    "allocator": ("keep", "default"),
}


def speed(cell: dict, seconds: float) -> float:
    """Training images a second of one cell, after two steps of warm-up. To be called in a process of its own."""
    import torch
    from torch.nn import functional as F

    from lwnb.networks import build
    from lwnb.training import settings

    torch.set_num_threads(cell["threads"])
    torch.use_deterministic_algorithms(True)
    settings.allocate(cell["allocator"] == "keep")
    layout = torch.channels_last if cell["format"] == "channels_last" else torch.contiguous_format
    net = build.build(cell["model"], 10).to(memory_format=layout)
    options = {"fused": True} if cell["optimiser"] == "fused" else {}
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[cell["kind"]]
    momentum = {"momentum": 0.9, "nesterov": True} if cell["kind"] == "sgd" else {}
    optimizer = kind(net.parameters(), lr=1e-3, **momentum, **options)
    images = torch.randn(cell["batch"], 3, cell["size"], cell["size"]).contiguous(memory_format=layout)
    labels = torch.randint(10, (cell["batch"],))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=cell["precision"] == "bf16"):
            loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step(), step()
    steps, began = 0, time.perf_counter()
    while steps < 2 or time.perf_counter() - began < seconds:
        step()
        steps += 1
    return steps * cell["batch"] / (time.perf_counter() - began)


def table(rows: list[dict]) -> pd.DataFrame:
    """Median, lowest and highest images/s of each cell, the fastest of each network and number of threads first."""
    frame = pd.DataFrame([row["job"] | {"speed": row["speed"]} for row in rows]).drop(columns="repeat")
    what = [name for name in frame if name != "speed"]
    found = frame.groupby(what, sort=False)["speed"].agg(["median", "min", "max", "count"]).reset_index()
    group = ["model", "size", "precision", "threads"]
    found["of_best"] = found["median"] / found.groupby(group)["median"].transform("max")
    return found.sort_values([*group, "median"], ascending=[True] * 4 + [False], ignore_index=True).round(2)


def main(
    models: Annotated[str, typer.Option(help="Networks, by commas.")] = ",".join(FIVE),
    sizes: Annotated[str, typer.Option(help="Image sizes in pixels, by commas.")] = "32",
    precisions: Annotated[str, typer.Option(help="fp32, bf16 or both, by commas.")] = "fp32",
    kind: Annotated[str, typer.Option(help="Optimiser: adamw or sgd.")] = "adamw",
    threads: Annotated[str, typer.Option(help="Numbers of threads, by commas.")] = f"1,{CORES}",
    batch: int = 128,
    repeats: int = 3,
    seconds: Annotated[float, typer.Option(help="Of measuring, a cell.")] = 3.0,
    fresh: Annotated[bool, typer.Option(help="Throw away what is there and measure all again.")] = False,
) -> None:
    """Print training images/s of every cell; what is in build/bench/engine.jsonl is not measured again."""
    file = home() / "build" / "bench" / "engine.jsonl"
    if fresh:
        file.unlink(missing_ok=True)
    axes = AXES | {"threads": sorted(set(map(int, threads.split(","))))}
    outer = itertools.product(range(repeats), sizes.split(","), precisions.split(","), models.split(","))
    cells = [
        dict(zip(axes, values, strict=True))
        | {"model": model, "size": int(size), "precision": precision, "kind": kind, "batch": batch, "repeat": repeat}
        for repeat, size, precision, model in outer
        for values in itertools.product(*axes.values())
    ]
    context = get_context("forkserver")  # a fork of a process that has imported torch and computed nothing
    context.set_forkserver_preload(["torch", "lwnb.networks.build", "lwnb.training.settings"])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        for number, cell in enumerate(cells, 1):
            if store.key(cell) not in store.read(file):
                found = pool.submit(speed, cell, seconds).result()
                store.append(file, cell, {"speed": found, "load_1min": os.getloadavg()[0]})
                said = " ".join(map(str, cell.values()))
                print(f"[{number}/{len(cells)}] {said}: {found:.0f} images/s", file=sys.stderr, flush=True)
    done = store.read(file)
    rows = [done[store.key(cell)] for cell in cells]
    print(table(rows).to_string(index=False))
    print(
        f"load average as the cells ended: median {statistics.median(r['load_1min'] for r in rows):.1f} "
        f"on {CORES} cores"
    )


if __name__ == "__main__":
    typer.run(main)
