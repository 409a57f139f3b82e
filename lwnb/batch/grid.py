"""Which runs are missing, and who trains them."""

import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from lwnb.base.errors import ParamsError
from lwnb.batch import estimates
from lwnb.batch import workers as pool
from lwnb.batch.progress import Progress
from lwnb.data import census
from lwnb.plan.facts import DATASETS
from lwnb.plan.params import Params
from lwnb.plan.run import Run
from lwnb.records import costs, failures, folders, results, tables

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
    if p.digest and not DATASETS[p.dataset].own:
        return p
    from lwnb.data import sets
    from lwnb.plan import studies

    found = sets.load(studies.source(p), p.image_size)
    if p.num_classes not in (0, len(found.classes)):
        raise ParamsError(
            f"num_classes: {p.num_classes} is not possible: the images have {len(found.classes)} classes; leave it out"
        )
    sizes = {"pool_train": len(found.train.labels), "pool_test": len(found.test.labels)}
    return p.model_copy(update={"digest": found.digest, "num_classes": len(found.classes)} | sizes)


class Job(NamedTuple):
    """A run to train, the run that it starts from, whether its weights are wanted as well as its record, and the
    runtimes that its network is exported to as it ends."""

    run: Run
    parent: Run | None
    weights: bool
    runtimes: Sequence[str] = ()


def ensure(
    runs: list[Run],
    workers: int | None = None,
    scheduler: str | None = None,
    exported: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ahead: estimates.Outlook | None = None,
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
    ahead : the outlook of these runs, where it is known
    """
    ahead = ahead or estimates.outlook(runs)
    known, todo, expected = {run.key: run for run in ahead.runs}, ahead.missing, ahead.seconds
    sources = {run.parent for run in todo}
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
    return tables.of_runs(list(known.values()))


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
    if source and not estimates.is_here(source[0], weights=True):
        results.store(*source)
    _one(job, lambda row: pool.tell(row | {"key": job.run.key}))
    record = results.find(job.run)
    return (results.pack(record) if far and record else None), None if record else failures.failure(job.run)


def _settle(run: Run, outcome: tuple | BaseException) -> None:
    """Keep what a worker gave back, where it is not here."""
    if isinstance(outcome, BaseException):  # its workers died, again and again
        failures.fail(run, outcome)
        return
    files, failure = outcome
    if files and not results.find(run):
        results.store(run, files)
    elif failure and not failures.failure(run):
        failures.keep_failure(run, failure)


def _one(job: Job, on_epoch: Callable[[dict], None]) -> None:
    from lwnb.training import settings, train  # torch and the training library: only when there is something to train

    run = job.run
    try:
        with folders.lock(run):
            if not estimates.is_here(run, job.weights):  # another process may have trained it meanwhile
                train.train(run, job.parent, on_epoch)
    except Exception as error:  # noqa: BLE001 - one run's fault is not the batch's: it is recorded and shown
        failures.fail(run, error)
        del error
        gc.collect()  # what the run held, for the next one
        settings.release()
    else:
        _export(job)


def _export(job: Job) -> None:
    """Convert the network of a run while its weights are at hand. What fails is said here,
    and tried again by its page."""
    if not job.runtimes:
        return
    from lwnb.batch import prepare

    try:
        prepare.convert([job.run], job.runtimes)
    except Exception as error:  # noqa: BLE001 - the run itself is whole
        text = f"{job.run.dataset} {job.run.model} {job.run.key}: not exported ({type(error).__name__}: {error})"
        print(text, file=sys.stderr, flush=True)


def _told(run: Run, reasons: set[str]) -> str:
    """What became of a run, in words; a reason that was told before is not told again."""
    status = results.status(run)
    reason = failures.failure(run)["reason"] if status == "failed" else None
    if reason is None or reason in reasons:
        return status + " for the same reason" * (reason is not None)
    reasons.add(reason)
    return f"{status}: {reason}"


def fingerprint(p: Params) -> list:
    """What the pages of these parameters read: the state of each run, what was converted, device records,
    what is known of the images."""
    from lwnb.plan import studies

    states = [(run.key, results.status(run), (failures.failure(run) or {}).get("reason")) for run in studies.runs(p)]
    converted = [record.conversions for record in map(results.find, studies.architectures(p)) if record]
    return [states, converted, costs.timing_names(), census.find(p.digest)]
