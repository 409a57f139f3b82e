"""Which runs are missing, and who trains them."""

import gc
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from lwnb import census, costs, results
from lwnb import workers as pool
from lwnb.params import FIVE, Params, ParamsError, Run, Source
from lwnb.progress import Progress

SPEED = {
    "mobilenet_v3_small": 2950,
    "resnet18": 1040,
    "squeezenet1_1": 4330,
    "efficientnet_v2_s": 340,
    "shufflenet_v2_x1_0": 2460,
}
"""Training images a second at 32 px and output stride 32, for a first estimate before this machine has runs of its own.

By two workers of one thread together, on two cores of an Intel Xeon with AVX-512, torch 2.14.1, fp32, batch 128: medians of the
published runs on Tiny ImageNet; of EfficientNetV2-S by the length of a step (`python -m benchmarks.smallmaps`)."""


PINNED = ("digest", "num_classes", "pool_train", "pool_test")
"""Parameters that `pin` reads from the images."""


def pin(p: Params) -> Params:
    """Parameters with the data set's digest, sizes and number of classes; read from the images where no file pins them.

    Raises
    ------
    ParamsError
        A number of classes that the images do not have.
    DataError
        The images are not there, or have another digest.
    """
    if p.digest and p.dataset != "folder":
        return p
    from lwnb import data, studies

    found = data.load(studies.source(p), p.image_size)
    if p.num_classes not in (0, len(found.classes)):
        raise ParamsError(
            f"num_classes: {p.num_classes} is not possible: the images have {len(found.classes)} classes; leave it out"
        )
    sizes = {"pool_train": len(found.train.labels), "pool_test": len(found.test.labels)}
    return p.model_copy(update={"digest": found.digest, "num_classes": len(found.classes)} | sizes)


def check(runs: Iterable[Run]) -> None:
    """Refuse, before anything trains, what would stop these runs: their images, splits, networks or weights.

    Only runs that must be trained count. Images that would have to be downloaded are taken as they should be.

    Raises
    ------
    ParamsError, DataError
        What is wrong, once, whatever the number of runs that it would stop.
    """
    runs = list(runs)
    todo, known = missing(runs), {run.key for run in runs}
    for run in {(r.model, r.image_size, r.output_stride): r for r in todo}.values():
        _check_network(run)
    for run in {(r.parent, r.model): r for r in todo if r.parent and r.parent not in known}.values():
        _check_weights(run)
    sources = {run.parent for run in todo}
    for run in {(r.source, r.digest, r.image_size, r.classes, r.train_size, r.val_share): r for r in todo}.values():
        _check_images(run, run.key in sources)


def _check_network(run: Run) -> None:
    if run.model in FIVE and run.image_size >= 32:
        return  # known to work at every output stride, and the rest takes torch
    from lwnb import measure

    try:
        measure.cost(run.model, 2, run.image_size, run.output_stride)
    except (ValueError, RuntimeError, AssertionError) as error:  # as torch and torchvision have it
        reason = str(error).strip().splitlines()[-1]
        raise ParamsError(
            f"image_size: {run.image_size} is not possible for {run.model} at output stride {run.output_stride}: {reason}"
        ) from None


def _check_weights(run: Run) -> None:
    record = results.find_key(run.parent)
    if not record or not record.weights:
        what = "has no weights on this machine" if record else "is not here"
        raise ParamsError(f"source: run {run.parent} {what}; train it here first, or name another source")
    if record.run.model != run.model:
        raise ParamsError(
            f"source: run {run.parent} is a {record.run.model}, and its weights do not fit a {run.model}: "
            "name another source or another transfer_model"
        )


def _check_images(run: Run, is_source: bool) -> None:
    from lwnb import archives

    try:
        if run.dataset == "digits" or archives.here(run.source or Source(dataset=run.dataset)):
            from lwnb import data

            data.task(run)
    except archives.DataError as error:
        if not is_source:
            raise
        raise archives.DataError(
            f"source: the weights of run {run.key}, pretrained on {run.dataset}, are not here, and it cannot be trained: {error}"
        ) from None


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
    """Training time of each run in seconds of this whole machine: of many runs side by side, the sum is the time of all.

    From this machine's runs of the same network, image size and output stride, frozen or not; else of the same network;
    else `SPEED`. Long runs count by their length, since short ones are slowed by what is not training.
    """
    spent, done, here = defaultdict(float), defaultdict(float), results.machine()
    for record in results.every():
        if not record.published and _made_on(here, about := record.environment):
            share = about["threads"] / about["machine"]["cores"] if about["device"] == "cpu" else 1
            for like in (_shape(record.run), (record.run.model,)):
                spent[like] += about["train_seconds"] * share
                done[like] += _work(record.run, record.metrics["n_train"])
    known = {(model,): 1 / speed for model, speed in SPEED.items()} | {like: spent[like] / done[like] for like in done}
    paces = [known.get(_shape(run), known.get((run.model,))) for run in runs]
    return [pace * _work(run) if pace and _work(run) else None for pace, run in zip(paces, runs, strict=True)]


def _made_on(machine: dict, about: dict) -> bool:
    return all(about["machine"].get(part) == machine[part] for part in ("cpu", "instructions", "cores"))


def _shape(run: Run) -> tuple:
    return run.model, run.image_size, run.output_stride, run.freeze


def _work(run: Run, images: int = 0) -> float:
    """Images that pass through the network in training, in units of one image of 32 px at output stride 32."""
    size = run.train_size or (run.source.pool_train if run.source else 0)
    return run.epochs * (images or size) * (run.image_size / 32) ** 2 * (32 / run.output_stride) ** 2


def plan(runs: list[Run]):
    """A DataFrame with a row a run: key, the fields in which the runs differ, status, and estimated seconds."""
    import pandas as pd

    rows = [run.model_dump() for run in runs]
    for row in rows:
        if row["split_seed"] == row["seed"]:
            row["split_seed"] = None  # said once
    varying = [name for name in rows[0] if len({repr(row[name]) for row in rows}) > 1 or name == "model"]
    frame = pd.DataFrame([{name: row[name] for name in varying} for row in rows])
    if "digest" in frame:
        frame["digest"] = frame["digest"].str[:12]  # as long as a key
    frame.insert(0, "key", [run.key for run in runs])
    todo = {run.key for run in missing(runs)}
    frame["status"] = [results.status(run) for run in runs]
    frame["estimate_s"] = [cost if run.key in todo else 0.0 for run, cost in zip(runs, estimate(runs), strict=True)]
    return frame


class Job(NamedTuple):
    """A run to train, the run that it starts from, whether its weights are wanted as well as its record, and the runtimes
    that its network is exported to as it ends."""

    run: Run
    parent: Run | None
    weights: bool
    runtimes: Sequence[str] = ()


def ensure(
    runs: list[Run],
    workers: int | None = None,
    scheduler: str | None = None,
    exported: Mapping[str, Sequence[str]] = MappingProxyType({}),
):
    """Train what is missing, sources first, then the longest, and return the table of all these runs.

    A run that fails is kept as a row with its reason; the others go on. Asked again, it is tried again.

    Parameters
    ----------
    workers : processes side by side, the processor's cores shared among them; by default what `LWNB_WORKERS` says, else
        one a core, or one in all where there is an accelerator. A single run trains in this process.
    scheduler : the address of a dask scheduler whose workers train instead; by default what `LWNB_SCHEDULER` says.
        Records and weights come back to this process.
    exported : runtimes by the key of a run: what is trained now is also exported to these as it ends, and tested there
    """
    known, todo = {run.key: run for run in runs}, missing(runs)
    sources = {run.parent for run in todo}
    expected = dict(zip((run.key for run in todo), estimate(todo), strict=True))
    jobs = [Job(run, known.get(run.parent), run.key in sources, exported.get(run.key, ())) for run in todo]
    if workers is None and scheduler is None:
        workers, scheduler = pool.default()
    workers = min(len(jobs), workers or _cores()) if jobs else 0
    told = partial(_told, reasons=set())
    if jobs:
        results.prepare()
    with Progress(expected) as progress:
        if jobs and (scheduler or workers > 1):
            jobs.sort(key=lambda job: (not job.weights, -(expected[job.run.key] or 0)))
            _spread(jobs, workers, scheduler, progress, told)
        else:
            for job in jobs:
                _one(job, partial(progress.epoch, job.run))
                progress.end(job.run, told(job.run))
    return results.table(list(known.values()))


def _cores() -> int:
    import torch

    return 1 if torch.accelerator.is_available() else os.cpu_count() or 1


def _spread(
    jobs: list[Job], workers: int, scheduler: str | None, progress: Progress, told: Callable[[Run], str]
) -> None:
    """Train in worker processes; those of a scheduler may lie on other machines, and get and give back files."""
    runs = {job.run.key: job.run for job in jobs}
    threads = None if scheduler else max(1, (os.cpu_count() or 1) // workers)
    with pool.connect(workers, scheduler) as client:
        pool.listen(client, lambda row: row["key"] in runs and progress.epoch(runs[row["key"]], row))
        tasks = [
            pool.Task(job.run.key, job.run.parent, partial(_parcel, job, threads, bool(scheduler))) for job in jobs
        ]
        for key, outcome in pool.spread(tasks, _alone, client):
            _settle(runs[key], outcome)
            progress.end(runs[key], told(runs[key]))


def _parcel(job: Job, threads: int | None, far: bool) -> tuple:
    """What a worker needs for a job: also the record that it starts from, where the worker may not have it."""
    source = results.find_key(job.run.parent) if far and job.run.parent else None
    return job, threads, far, source and (source.run, results.pack(source))


def _alone(job: Job, threads: int | None, far: bool, source: tuple | None) -> tuple[dict | None, dict | None]:
    """A run in a worker process of its own: its record's files, if they are wanted, and its failure."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    if source and not _here(source[0], weights=True):
        results.store(*source)
    _one(job, lambda row: pool.tell(row | {"key": job.run.key}))
    record = results.find(job.run)
    return (results.pack(record) if far and record else None), None if record else results.failure(job.run)


def _settle(run: Run, outcome: tuple | BaseException) -> None:
    """Keep what a worker gave back, where it is not here."""
    if isinstance(outcome, BaseException):  # its workers died, again and again
        results.fail(run, outcome)
        return
    files, failure = outcome
    if files and not results.find(run):
        results.store(run, files)
    elif failure and not results.failure(run):
        results.keep_failure(run, failure)


def _one(job: Job, on_epoch: Callable[[dict], None]) -> None:
    from lwnb import settings, train  # torch and the training library: only when there is something to train

    run = job.run
    try:
        with results.lock(run):
            if not _here(run, job.weights):  # another process may have trained it meanwhile
                train.train(run, job.parent, on_epoch)
    except Exception as error:  # noqa: BLE001 - one run's fault is not the batch's: it is recorded and shown
        results.fail(run, error)
        del error
        gc.collect()  # what the run held, for the next one
        settings.release()
    else:
        _export(job)


def _export(job: Job) -> None:
    """Convert the network of a run while its weights are at hand. What fails is said here, and tried again by its page."""
    if not job.runtimes:
        return
    from lwnb import exports

    try:
        exports.convert([job.run], job.runtimes)
    except Exception as error:  # noqa: BLE001 - the run itself is whole
        text = f"{job.run.dataset} {job.run.model} {job.run.key}: not exported ({type(error).__name__}: {error})"
        print(text, file=sys.stderr, flush=True)


def _told(run: Run, reasons: set[str]) -> str:
    """What became of a run, in words; a reason that was told before is not told again."""
    status = results.status(run)
    reason = results.failure(run)["reason"] if status == "failed" else None
    if reason is None or reason in reasons:
        return status + " for the same reason" * (reason is not None)
    reasons.add(reason)
    return f"{status}: {reason}"


def fingerprint(p: Params) -> list:
    """What the pages of these parameters read: the state of each run, what was converted, device records, what is known of the images."""
    from lwnb import studies

    states = [(run.key, results.status(run), (results.failure(run) or {}).get("reason")) for run in studies.runs(p)]
    converted = [record.conversions for record in map(results.find, studies.architectures(p)) if record]
    return [states, converted, costs.timing_names(), census.find(p.digest)]
