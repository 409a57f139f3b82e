"""The comparison: python -m benchmarks --help"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer

from benchmarks import plan, store
from benchmarks.plan import PARTS, SIDES, Wish, jobs
from lwnb.base.places import CHECKOUT, home
from lwnb.plan.facts import FIVE
from lwnb.records import machine


def main(
    page: Annotated[str, typer.Option(help="A page: a file of params/, or a path to one.")] = "digits",
    data_root: Annotated[str | None, typer.Option(help="Where the page's images lie.")] = None,
    models: Annotated[str, typer.Option(help="Networks, by commas.")] = ",".join(FIVE),
    sides: Annotated[str, typer.Option(help="Sides, by commas.")] = ",".join(SIDES),
    parts: Annotated[str, typer.Option(help="Parts, by commas.")] = ",".join(PARTS),
    seeds: Annotated[
        int,
        typer.Option(help="0: five of the cheap networks, three of the others; two of the sides that are only timed."),
    ] = 0,
    repeats: Annotated[int, typer.Option(help="Of each job that shows how cost grows.")] = 2,
    epochs: Annotated[
        int, typer.Option(help="0: what each network needs on digits, and what a few hours allow on other pages.")
    ] = 0,
    train_size: Annotated[int | None, typer.Option(help="Default: all digits, 10000 of other pages.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: 32 for digits, 128 for other pages.")] = None,
    fresh: Annotated[bool, typer.Option(help="Throw away what is there and run all again.")] = False,
) -> None:
    """Train the same runs by every side, a fresh process each, and print the tables. What is there is not run again."""
    chosen = [_among(text, known) for text, known in ((models, None), (sides, SIDES), (parts, PARTS))]
    page = plan.page_of(page, data_root, train_size=train_size, batch_size=batch_size)
    wish = Wish(page, *chosen, seeds, epochs, repeats)
    file = home() / "build" / "bench" / "results.jsonl"
    if fresh:
        file.unlink(missing_ok=True)
    planned = jobs(wish)
    failed = perform(planned, file)
    # pandas and statsmodels come after the jobs: a child's peak of memory begins with that of its parent
    from benchmarks import tables

    found = store.read(file)
    tables.show([found[store.key(job)] for job in planned if store.key(job) in found], wish)
    if failed:
        sys.exit(f"{failed} of {len(planned)} jobs failed: their errors stand above, and the tables lack them")


def _among(text: str, known) -> list[str]:
    names = text.split(",")
    for name in names:
        if known and name not in known:
            raise typer.BadParameter(f"{name!r} is not known; allowed are {', '.join(known)}")
    return names


def perform(planned: list[dict], file: Path) -> int:
    """Run the jobs that have no result yet, one after another; returns how many failed."""
    have, failed = store.read(file), 0
    todo = [job for job in planned if store.key(job) not in have]
    for number, job in enumerate(todo, 1):
        load = os.getloadavg()[0]
        seconds, result, error = run(job, file.parent)
        about = " ".join(str(job.get(name, "")) for name in ("part", "side", "workers", "repeat"))
        fields = job["runs"][0]
        about += f" {len(job['runs'])} x {fields['model']} seed {fields['seed']}"
        print(f"[{number}/{len(todo)}] {about}: {seconds:.1f} s{error}", file=sys.stderr, flush=True)
        failed += bool(error)
        if not error:
            store.append(file, job, result | {"wall_s": seconds, "load_1min": load, "commit": machine.commit()})
    return failed


def run(job: dict, folder: Path) -> tuple[float, dict, str]:
    """Seconds of a job from start to end of its process, its result, and the end of what it said if it failed.

    The process has a home of its own, with no run in it, and shares the decoded data set.
    """
    with store.fresh_home(folder) as place:
        env = os.environ | {"LWNB_HOME": str(place)}
        if "threads" in job:
            env["OMP_NUM_THREADS"] = str(job["threads"])
        out, said = place / "result.json", place / "said.txt"
        command = [sys.executable, "-m", "benchmarks.job", json.dumps(job), str(out)]
        with said.open("w") as stream:
            began = time.perf_counter()
            process = psutil.Popen(command, cwd=CHECKOUT, env=env, stdout=stream, stderr=stream)
            most = watch(process)
            seconds = time.perf_counter() - began
        if process.returncode:
            end = said.read_text(encoding="utf-8", errors="replace")[-3000:]
            return seconds, {}, f", failed with status {process.returncode}:\n{end}"
        return seconds, json.loads(out.read_text(encoding="utf-8")) | {"tree_memory_mib": most}, ""


def watch(process: psutil.Popen) -> float:
    """Wait for the end of a process; the most memory that it and its children held together, in MiB.

    Looked at once a second: a page that several share counts once (PSS on Linux; elsewhere what each holds alone).
    """
    most = 0.0
    while True:
        try:
            process.wait(timeout=1)
            return most
        except psutil.TimeoutExpired:
            most = max(most, tree_memory(process))


def tree_memory(process: psutil.Process) -> float:
    """Memory of a process and its children at this moment, in MiB; one that has just ended counts nothing."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            held = one.memory_full_info()
            total += getattr(held, "pss", held.uss)
    return total / 2**20


if __name__ == "__main__":
    typer.run(main)
