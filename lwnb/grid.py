"""Which runs are missing, and who trains them."""

import logging
import os
import statistics
import sys
from collections.abc import Iterable
from typing import NamedTuple

from filelock import FileLock
from tqdm import tqdm

from lwnb import results
from lwnb.params import Params, Run

SPEED = {
    "mobilenet_v3_small": 2500,
    "resnet18": 800,
    "squeezenet1_1": 3300,
    "efficientnet_v2_s": 240,
    "shufflenet_v2_x1_0": 1900,
}
"""Training images a second at 32 px and output stride 32, for a first estimate before this machine has runs of its
own: two cores of an AMD EPYC with AVX-512, torch 2.14.1, fp32, channels_last, batch 128."""


PINNED = ("digest", "num_classes", "pool_train", "pool_test")
"""Parameters that `pin` reads from the images."""


def pin(p: Params) -> Params:
    """Parameters with the data set's digest, sizes and number of classes; read from the images where no file pins them."""
    if p.digest:
        return p
    from lwnb import data, studies

    found = data.load(studies.source(p), p.image_size)
    sizes = {"pool_train": len(found.train.labels), "pool_test": len(found.test.labels)}
    return p.model_copy(update={"digest": found.digest, "num_classes": len(found.classes)} | sizes)


def missing(runs: Iterable[Run]) -> list[Run]:
    """The runs that must be trained, sources first: those without a record, and sources whose weights are not here."""
    known, todo = {run.key: run for run in runs}, {}

    def need(run: Run, weights: bool = False) -> None:
        if run.key in todo or _here(run, weights):
            return
        if run.parent in known:
            need(known[run.parent], weights=True)
        todo[run.key] = run

    for run in known.values():
        need(run)
    return list(todo.values())


def _here(run: Run, weights: bool) -> bool:
    record = results.find(run)
    return bool(record and (record.weights or not weights))


def estimate(runs: list[Run]) -> list[float | None]:
    """Training time of each run in seconds, from the runs that this machine has of the same network, or from `SPEED`."""
    own: dict[str, list[float]] = {}
    for record in results.every():
        if record.weights:  # trained here, not published elsewhere
            work = _work(record.run, record.metrics["n_train"])
            own.setdefault(record.run.model, []).append(record.environment["train_seconds"] / work)
    pace = {model: 1 / speed for model, speed in SPEED.items()} | {m: statistics.median(s) for m, s in own.items()}
    return [pace[run.model] * _work(run) if run.model in pace and _work(run) else None for run in runs]


def _work(run: Run, images: int = 0) -> float:
    """Images that pass through the network in training, in units of one image of 32 px at output stride 32."""
    size = run.train_size or (run.source.pool_train if run.source else 0)
    return run.epochs * (images or size) * (run.image_size / 32) ** 2 * (32 / run.output_stride) ** 2


def plan(runs: list[Run]):
    """A DataFrame with a row a run: key, the fields in which the runs differ, status, and estimated seconds."""
    import pandas as pd

    rows = [run.model_dump() for run in runs]
    varying = [name for name in rows[0] if len({repr(row[name]) for row in rows}) > 1 or name == "model"]
    frame = pd.DataFrame([{name: row[name] for name in varying} for row in rows])
    frame.insert(0, "key", [run.key for run in runs])
    todo = {run.key for run in missing(runs)}
    frame["status"] = [results.status(run) for run in runs]
    frame["estimate_s"] = [cost if run.key in todo else 0.0 for run, cost in zip(runs, estimate(runs), strict=True)]
    return frame


class Job(NamedTuple):
    """A run to train, the run that it starts from, and whether its weights are wanted as well as its record."""

    run: Run
    parent: Run | None
    weights: bool


def ensure(runs: list[Run], workers: int | None = None):
    """Train what is missing, sources first, then the longest, and return the table of all these runs.

    A run that fails is kept as a row with its reason; the others go on. Asked again, it is tried again.

    Parameters
    ----------
    workers : processes side by side, the processor's cores shared among them; by default one a core, or one in all
        where there is an accelerator. A single run trains in this process.
    """
    known, todo = {run.key: run for run in runs}, missing(runs)
    sources = {run.parent for run in todo}
    jobs = [Job(run, known.get(run.parent), run.key in sources) for run in todo]
    workers = min(len(jobs), workers or _cores()) if jobs else 0
    with _Progress(todo) as progress:
        if workers > 1:
            _spread(jobs, workers, progress)
        for job in jobs if workers == 1 else []:
            _one(job, progress)
    return results.table(list(known.values()))


def _cores() -> int:
    import torch

    return 1 if torch.accelerator.is_available() else os.cpu_count() or 1


def _spread(jobs: list[Job], workers: int, progress: "_Progress") -> None:
    """Train in worker processes: sources first, then the longest; a run waits for the run that it starts from."""
    from distributed import Client, LocalCluster, as_completed

    threads = max(1, (os.cpu_count() or 1) // workers)
    costs = dict(zip((job.run.key for job in jobs), estimate([job.run for job in jobs]), strict=True))
    waiting = sorted(jobs, key=lambda job: (not job.weights, -(costs[job.run.key] or 0)))
    pending = {job.run.key: job.run for job in jobs}
    local = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None}
    with LocalCluster(**local, silence_logs=logging.ERROR) as cluster, Client(cluster) as client:
        running = as_completed()

        def submit(count: int) -> None:
            for job in [job for job in waiting if job.run.parent not in pending][:count]:
                waiting.remove(job)
                running.add(client.submit(_alone, job, threads, key=job.run.key, retries=1))

        submit(workers)
        for future in running:
            run = pending.pop(future.key)
            if future.exception():  # the worker itself died, twice
                results.fail(run, future.exception())
            progress.end(run)
            submit(workers - running.count())


def _alone(job: Job, threads: int) -> None:
    """A run in a worker process of its own."""
    import torch

    torch.set_num_threads(threads)
    _one(job)


def _one(job: Job, progress: "_Progress | None" = None) -> None:
    from lwnb import train  # torch and the training library: only when there is something to train

    run = job.run
    results.part(run).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(results.part(run).with_suffix(".lock")):  # a dead process leaves no lock behind
        if not _here(run, job.weights):  # another process may have trained it meanwhile
            try:
                train.train(run, job.parent, on_epoch=lambda row: progress and progress.epoch(run, row))
            except Exception as error:  # noqa: BLE001 - one run's fault is not the batch's: it is recorded and shown
                results.fail(run, error)
    if progress:
        progress.end(run)


def latencies(runs: list[Run]):
    """A DataFrame of key and `latency_ms`: the median of eager PyTorch on this machine, batch 1, one thread.

    Measured where this machine has no record yet, for finished runs alone; never beside training.
    """
    import pandas as pd

    rows = []
    for run in runs:
        if record := results.find(run):
            what = (run.model, record.metrics["num_classes"], run.image_size, run.output_stride)
            rows.append({"key": run.key, "latency_ms": statistics.median(_timing(*what)["samples_ms"])})
    return pd.DataFrame({"key": [run.key for run in runs]}).merge(
        pd.DataFrame(rows, columns=["key", "latency_ms"]), how="left"
    )


def _timing(*what) -> dict:
    found = results.find_timing(results.setting(*what))
    if not found:
        from lwnb import measure

        found = measure.latency(*what)
        results.save_timing(found)
    return found


def fingerprint(p: Params) -> list:
    """What the pages of these parameters read: the state of each run and the timings that are there."""
    from lwnb import studies

    states = [(run.key, results.status(run), (results.failure(run) or {}).get("reason")) for run in studies.runs(p)]
    return [states, results.timings()]


class _Progress:
    """A bar over the epochs of all runs on a terminal or in a notebook; lines in a log."""

    def __init__(self, runs: list[Run]):
        live = sys.stderr.isatty() or "ipykernel" in sys.modules
        self.bar = tqdm(total=sum(run.epochs for run in runs), unit="epoch", disable=not live or not runs)
        self.done, self.count, self.reached = 0, len(runs), {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()

    def epoch(self, run: Run, row: dict):
        self.bar.set_description(f"{self.done + 1}/{self.count} {run.dataset} {run.model}")
        self._advance(run, row["epoch"])
        self._line(
            f"{run.dataset} {run.model} {run.key} epoch {row['epoch']}/{run.epochs} "
            f"loss {row['train_loss']:.3f} val_top1 {row['val_top1']:.3f}"
        )

    def end(self, run: Run):
        self.done += 1
        self._advance(run, run.epochs)
        self.bar.set_description(f"{self.done}/{self.count}")
        status = results.status(run)
        reason = f": {results.failure(run)['reason']}" if status == "failed" else ""
        self._line(f"[{self.done}/{self.count}] {run.dataset} {run.model} {run.key} {status}{reason}")

    def _advance(self, run: Run, epoch: int):
        self.bar.update(epoch - self.reached.get(run.key, 0))
        self.reached[run.key] = epoch

    def _line(self, text: str):
        if self.bar.disable:
            print(text, file=sys.stderr, flush=True)
