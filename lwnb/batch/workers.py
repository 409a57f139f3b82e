"""Tasks on worker processes: this machine's own, or those of a cluster that the user already has (dask.distributed)."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from lwnb import __version__
from lwnb.base.errors import ParamsError
from lwnb.plan.run import RECIPE

TOPIC = "lwnb"
"""The name under which workers tell what they do; see `tell`."""


class Task(NamedTuple):
    """One call of a function on a worker: its key, the key of the task that it waits for,
    and what makes its arguments."""

    key: str
    after: str | None
    arguments: Callable[[], tuple]


@contextmanager
def connect(count: int, scheduler: str | None = None):
    """A client of `count` local worker processes, one thread of Python each, or of a scheduler's workers.

    Raises
    ------
    ParamsError
        No scheduler answers at this address, or it is gone before the end.
    """
    import dask
    from distributed import Client, LocalCluster
    from distributed.client import FuturesCancelledError
    from distributed.comm import CommClosedError

    quiet = {
        "distributed.admin.large-graph-warning-threshold": "1GB",  # a task may carry the weights that it starts from
        "distributed.worker.profile.enabled": False,  # it looks at what a worker does a hundred times a second
    }
    with dask.config.set(quiet):
        if scheduler:
            try:
                client = Client(scheduler, timeout="10s")
            except (OSError, ValueError) as error:
                raise ParamsError(
                    f"--scheduler {scheduler}: no scheduler answers there ({error}); start one: dask scheduler"
                ) from None
            with client:
                try:
                    yield client
                except Exception as error:
                    lost = isinstance(error, (FuturesCancelledError, CommClosedError)) or client.status != "running"
                    if isinstance(error, ParamsError) or not lost:
                        raise
                    raise ParamsError(
                        f"--scheduler {scheduler}: the connection was lost ({type(error).__name__}). "
                        "What has ended is kept: start the scheduler again, and ask again"
                    ) from error
        else:
            local = {"n_workers": count, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": ":0"}
            with (
                LocalCluster(**local, silence_logs=logging.ERROR) as cluster,
                Client(cluster) as client,
            ):
                yield client


def spread(tasks: list[Task], do: Callable, client) -> Iterator[tuple[str, Any]]:
    """Call `do(*arguments)` for each task on the client's workers, one at a time on each; what is first goes first.

    A task of a worker that died is given to another one, three times at most. Workers may come and go.

    Parameters
    ----------
    tasks : in the order wanted; one waits for the task it names in `after`, where that is among them
    client : see `connect`. Where workers announce a resource GPU, only they work, one task a GPU.

    Yields
    ------
    The key of each task as it ends, with its result or the exception that ended it.
    """
    waiting, pending, running, seen = list(tasks), {task.key for task in tasks}, {}, set()
    while waiting or running:
        slots, resources = _slots(client, seen)
        ready = [task for task in waiting if task.after not in pending]
        for task in ready[: max(0, slots - len(running))]:
            waiting.remove(task)
            future = client.submit(do, *task.arguments(), key=task.key, resources=resources, pure=False)
            running[future] = task.key
        for future in _ended(running):
            key = running.pop(future)
            pending.discard(key)
            yield key, future.exception() or future.result()


def _ended(running: dict) -> list:
    """The futures that have ended, as soon as there is one; after two seconds none,
    to see whether workers have come."""
    from distributed import wait

    if not running:
        time.sleep(2)
        return []
    try:
        return list(wait(list(running), timeout=2, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return []


def _slots(client, seen: set) -> tuple[int, dict | None]:
    """How many tasks may run at once, and the resources that each asks for; new workers are looked at first."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if new := sorted(set(workers) - seen):
        about = client.run(_about, workers=new, on_error="return")
        for address in new:
            _admit(address, workers[address]["nthreads"], about.get(address))
        seen.update(new)
    if not workers and None not in seen:
        print("no worker is there: waiting for one", file=sys.stderr, flush=True)
        seen.add(None)  # said once
    gpus = sum(int(worker["resources"].get("GPU", 0)) for worker in workers.values())
    return (gpus, {"GPU": 1}) if gpus else (len(workers), None)


def _admit(address: str, threads: int, about) -> None:
    """Refuse a worker that would run two tasks in one process, or that has another version of this package."""
    if threads != 1:
        raise ParamsError(
            f"worker {address} takes {threads} tasks at once, and a run needs a process of its own: start it with "
            "--nthreads 1, and set OMP_NUM_THREADS to the cores that it may use"
        )
    if about != _about() and not isinstance(about, OSError):  # an OSError: it has gone again
        raise ParamsError(f"worker {address} has lwnb {about!r}, and this process {_about()!r}: install the same there")


def _about() -> tuple[str, int]:
    """The version of this package and of its recipe."""
    return __version__, RECIPE


def tell(message: dict) -> None:
    """From a task: hand a small message to the function that the client listens with; see `listen`."""
    from distributed import get_worker

    get_worker().log_event(TOPIC, message)


def listen(client, hear: Callable[[dict], None]) -> None:
    """Call `hear` with each message of a task, in a thread of the client's."""
    client.subscribe_topic(TOPIC, lambda event: hear(event[1]))


def default() -> tuple[int | None, str | None]:
    """The number of workers and the scheduler that `LWNB_WORKERS` and `LWNB_SCHEDULER` name, for notebooks."""
    count = os.environ.get("LWNB_WORKERS", "")
    if count and not (count.isdecimal() and int(count) > 0):
        raise ParamsError(f"LWNB_WORKERS: {count!r} is not possible: allowed is a number of processes from 1 on")
    return int(count) if count else None, os.environ.get("LWNB_SCHEDULER") or None
