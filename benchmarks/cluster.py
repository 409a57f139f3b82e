"""What the engine costs with many workers: python -m benchmarks.cluster --workers 200

Workers are real processes on this machine, forked from one that has imported dask.distributed; their runs sleep instead
of training, so that hundreds of them fit on a few cores. The runs go through `lwnb.batch.workers.spread`,
as those of `lwnb run` do.
"""

import asyncio
import os
import time
from multiprocessing import get_context
from typing import Annotated

import psutil
import typer

from lwnb.batch import workers

# for the processes that are started here: hundreds on a few cores, where each looks at itself less often
os.environ |= {
    "DASK_LOGGING__DISTRIBUTED": "error",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
}


def run(seconds: float, payload: int) -> tuple[str, float, float, bytes]:
    """A run that sleeps: its worker, its beginning and end, and as many bytes as a record has."""
    from distributed import get_worker

    began = time.time()
    time.sleep(seconds)
    return get_worker().address, began, time.time(), os.urandom(payload)


def schedule(address) -> None:
    """A scheduler in this process, until it is killed; its address goes into a pipe."""
    from distributed import Scheduler

    async def serve():
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            address.send(scheduler.address)
            await scheduler.finished()

    asyncio.run(serve())


def work(address: str) -> None:
    """A worker in this process, until it is killed or has no scheduler for half a minute."""
    from distributed import Worker

    async def serve():
        async with Worker(address, nthreads=1, memory_limit=0, death_timeout=30) as worker:  # then it ends by itself
            await worker.finished()

    asyncio.run(serve())


def measure(count: int, each: int, seconds: float, payload: int) -> dict:
    """Spread `each` runs for every one of `count` workers and see what it took."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["distributed", "lwnb.workers"])
    here, there = context.Pipe()
    children = [context.Process(target=schedule, args=(there,), daemon=True)]
    children[0].start()
    address = here.recv()
    children += [context.Process(target=work, args=(address,), daemon=True) for _ in range(count)]
    for child in children[1:]:
        child.start()
    try:
        with workers.connect(0, address) as client:
            while len(client.scheduler_info()["workers"]) < count:
                time.sleep(0.5)
            scheduler, caller = psutil.Process(children[0].pid), psutil.Process()
            before = [sum(process.cpu_times()[:2]) for process in (scheduler, caller)]
            tasks = [workers.Task(f"run-{n}", None, lambda: (seconds, payload)) for n in range(count * each)]
            began = time.time()
            done = [outcome for _, outcome in workers.spread(tasks, run, client)]
            wall = time.time() - began
            after = [sum(process.cpu_times()[:2]) for process in (scheduler, caller)]
            used = [b - a for a, b in zip(before, after, strict=True)]
            memory = [process.memory_info().rss / 2**20 for process in (scheduler, caller)]
    finally:
        for child in children:
            child.kill()
    return {
        "workers": count,
        "runs": len(done),
        "wall_s": wall,
        "busy_share": sum(end - start for _, start, end, _ in done) / (wall * count),
        "lost_s_a_run": wall / each - seconds,
        "scheduler_cpu_ms_a_run": 1000 * used[0] / len(done),
        "scheduler_cpu_share": used[0] / wall,
        "scheduler_mib": memory[0],
        "caller_cpu_ms_a_run": 1000 * used[1] / len(done),
        "caller_mib": memory[1],
    }


def main(
    counts: Annotated[str, typer.Option("--workers", help="Numbers of workers, by commas.")] = "2,20,100,200",
    each: Annotated[int, typer.Option(help="Runs for each worker.")] = 2,
    seconds: Annotated[float, typer.Option(help="That a run sleeps.")] = 60.0,
    payload: Annotated[int, typer.Option(help="Bytes that a run gives back; weights are 3 to 80 million.")] = 0,
) -> None:
    """Print a line for each number of workers: what the runs lost by waiting for the engine,
    and what scheduler and caller took."""
    for count in counts.split(","):
        row = measure(int(count), each, seconds, payload)
        print(", ".join(f"{name} {round(value, 3):g}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    typer.run(main)
