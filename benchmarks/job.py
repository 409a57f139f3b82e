"""One job in a process of its own: python -m benchmarks.job JOB RESULT, both named by `compare`."""

import json
import resource
import sys
from pathlib import Path

from lwnb.plan.run import Run, Source


def main() -> None:
    """Do the job (JSON) and write what came out to a file."""
    job = json.loads(sys.argv[1])
    result = about_machine(job) if job["part"] == "machine" else train(job)
    Path(sys.argv[2]).write_text(json.dumps(result | {"memory_mib": memory()}), encoding="utf-8")


def train(job: dict) -> dict:
    """Train the job's runs: one by its side, or several by this project's grid."""
    source = Source(**job["source"])
    runs = [Run(**fields, source=source) for fields in job["runs"]]
    if job["synthetic"]:
        from lwnb.data import sets

        sets.task = synthetic
    if "workers" in job:
        from lwnb.batch import grid
        from lwnb.records import results

        grid.ensure(runs, workers=job["workers"])
        return {"top1": [results.find(run).metrics["top1"] for run in runs]}
    from benchmarks import sides

    (run,) = runs
    return sides.SIDES[job["side"]](run)


def synthetic(run: Run):
    """Noise as images: `train_size` for training, 500 each for validation and test.
    What a step costs is not in them."""
    import torch

    from lwnb.data.sets import Split, Task

    generator = torch.Generator().manual_seed(run.seed)

    def split(count: int) -> Split:
        images = torch.randint(256, (count, 3, run.image_size, run.image_size), dtype=torch.uint8, generator=generator)
        ids = torch.randint(256, (count, 32), dtype=torch.uint8, generator=generator)
        return Split(images, torch.arange(count) % 10, ids)

    return Task(tuple("0123456789"), split(run.train_size), split(500), split(500), ())


def about_machine(job: dict) -> dict:
    """Decode the data set once for all jobs, count each network's MACs, and measure this machine's peak."""
    from lwnb.data import sets
    from lwnb.networks import counts
    from lwnb.records import machine

    (fields,) = job["runs"]
    task = sets.task(Run(**fields, source=Source(**job["source"])))
    what = (len(task.classes), fields["image_size"], fields["output_stride"])
    macs = {name: counts.cost(name, *what)["macs"] for name in job["models"]}
    sizes = {name: len(getattr(task, name).labels) for name in ("train", "val", "test")}
    about = {"machine": machine.machine(), "versions": machine.versions(*job["packages"])}
    return about | {
        "macs": macs,
        "splits": sizes,
        "peak_gflops": {name: peak(name) for name in ("float32", "bfloat16")},
    }


def peak(dtype: str, tries: int = 10) -> float:
    """The fastest 3x3 convolution found here, in GFLOP/s on all threads: best of `tries` for each of three shapes."""
    import time

    import torch

    best = 0.0
    for channels, side in ((64, 56), (128, 28), (256, 14)):
        images = torch.randn(32, channels, side, side, dtype=getattr(torch, dtype))
        images = images.contiguous(memory_format=torch.channels_last)
        layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False, dtype=images.dtype)
        layer = layer.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            layer(images)
            for _ in range(tries):
                began = time.perf_counter()
                layer(images)
                seconds = time.perf_counter() - began
                best = max(best, 2 * 9 * channels**2 * 32 * side**2 / seconds / 1e9)
    return best


def memory() -> float:
    """Peak resident memory of this process in MiB, without its children."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
