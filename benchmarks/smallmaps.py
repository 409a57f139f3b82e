"""What the short way of small maps gains in training: python -m benchmarks.smallmaps --help

Two copies of a network train on one fixed batch, one by torch's own convolutions, one by `lwnb.training.smallmaps`,
a step each in turn.
"""

import statistics
import time
from typing import Annotated

import pandas as pd
import typer

from lwnb.plan.facts import FIVE
from lwnb.records import machine


def milliseconds(model: str, size: int, stride: int, batch: int, steps: int) -> dict[str, float]:
    """Median milliseconds of a training step (forward, backward, AdamW) in fp32, channels last,
    after two steps of warm-up."""
    import torch
    from torch.nn import functional as F

    from lwnb.networks import build
    from lwnb.training import settings, smallmaps

    torch.use_deterministic_algorithms(True)
    settings.allocate(True)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,))
    plain, short = (build.build(model, 10, stride).to(memory_format=torch.channels_last) for _ in range(2))
    sides = {"plain_ms": plain, "short_ms": smallmaps.shortcut(short)}
    optimizers = {side: torch.optim.AdamW(net.parameters(), fused=True) for side, net in sides.items()}
    spent = {side: [] for side in sides}
    for _ in range(steps + 2):
        for side, net in sides.items():
            began = time.perf_counter()
            loss = F.cross_entropy(net(images), labels)
            optimizers[side].zero_grad()
            loss.backward()
            optimizers[side].step()
            spent[side].append(time.perf_counter() - began)
    return {side: 1e3 * statistics.median(times[2:]) for side, times in spent.items()}


def main(
    models: Annotated[str, typer.Option(help="Networks, by commas.")] = ",".join(FIVE),
    size: Annotated[int, typer.Option(help="Image size in pixels.")] = 32,
    stride: Annotated[int, typer.Option(help="Output stride.")] = 32,
    batches: Annotated[str, typer.Option(help="Batch sizes, by commas.")] = "32,128",
    threads: Annotated[str, typer.Option(help="Numbers of threads, by commas.")] = "1",
    steps: Annotated[int, typer.Option(help="Steps of each side.")] = 12,
) -> None:
    """Print the milliseconds of a step by each way, and their ratio."""
    import torch

    rows = []
    for count in map(int, threads.split(",")):
        torch.set_num_threads(count)
        for batch in map(int, batches.split(",")):
            for model in models.split(","):
                found = milliseconds(model, size, stride, batch, steps)
                ratio = found["plain_ms"] / found["short_ms"]
                rows.append({"threads": count, "batch": batch, "model": model, **found, "ratio": ratio})
    about = machine.machine()
    print(f"{about['cpu']}, {about['cores']} cores, torch {torch.__version__}, {size} px, output stride {stride}")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format))


if __name__ == "__main__":
    typer.run(main)
