"""What the page on deployment shows of trained networks and of shapes, made where no record holds it yet,
side by side."""

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from lwnb.base.places import home
from lwnb.edge import protocol
from lwnb.evidence import deployed
from lwnb.plan import studies
from lwnb.plan.facts import FORMATS, RUNTIMES, Cell
from lwnb.plan.params import Params
from lwnb.plan.run import Run
from lwnb.records import costs, results


def footprints(p: Params) -> list[dict]:
    """The bytes of each network's files and of its planned activations, exported where no record holds them yet."""
    _side_by_side(_unweighed(deployed.shapes(p), protocol.usable(p)))
    return [costs.find_footprint(shape) or shape for shape in map(_shape, deployed.shapes(p))]


def measure(p: Params, progress: Callable[[str], None] = lambda line: None) -> None:
    """Measure on this machine what the networks of a page cost on its runtimes, where no record holds it yet.

    Raises
    ------
    ParamsError
        A runtime of the page is not installed.
    """
    protocol.require(p.runtimes)
    results.prepare()
    footprints(p)
    cells = protocol.cells(p)
    todo = protocol.unmeasured(cells, p.device_rounds)
    progress(f"{len(cells)} cells, {len(todo)} to measure, {p.device_rounds} processes each")
    protocol.measure_cells(cells, p.device_rounds, progress)


def prepare(p: Params, runs: Iterable[Run], progress: Callable[[str], None] = lambda line: None) -> None:
    """Everything that the page on deployment shows and no record holds yet: conversions, footprints, timings.

    Nothing is measured for a page of published runs alone: it shows the published device records, and `lwnb measure`
    adds this machine's.
    """
    runs = list(runs)
    if published(runs):
        return
    _side_by_side(_unconverted(runs, protocol.usable(p)), _unweighed(deployed.shapes(p), protocol.usable(p)))
    protocol.measure_cells(protocol.cells(p), p.device_rounds, progress)


def time_eager(runs: Iterable[Run]) -> None:
    """Measure what one image takes by eager PyTorch, for the networks of finished runs that were trained here:
    one process each.

    What has a record of this machine is not measured again.
    """
    records = [record for record in map(results.find, runs) if record and not record.published]
    protocol.measure_cells([deployed.eager(record.run, record.metrics["num_classes"]) for record in records], rounds=1)


def published(runs: Iterable[Run]) -> bool:
    """Whether all of these runs that have a record were trained elsewhere and published, and there are some."""
    records = [record for record in map(results.find, runs) if record]
    return bool(records) and all(record.published for record in records)


def convert_shown(p: Params) -> None:
    """`convert`, of the networks that the page on deployment shows, for the runtimes that are installed."""
    convert(studies.exported(p), protocol.usable(p))


def convert(runs: Iterable[Run], wanted: list[str]) -> None:
    """Test the exported and the INT8 networks of finished runs whose weights are here, and keep it with their records;
    weigh their files.

    Runs that have it already, and published ones without weights, stay as they are.
    """
    records = [record for record in map(results.find, runs) if record and record.weights]
    shapes = [deployed.eager(record.run, record.metrics["num_classes"]) for record in records]
    _side_by_side(_unconverted([record.run for record in records], wanted), _unweighed(shapes, wanted))


def _side_by_side(*stages: list[Callable[[], None]]) -> None:
    """Make these calls, a stage after the other, by a process a core with one thread each;
    in this process where none has two."""
    calls = max(map(len, stages))
    if calls < 2:
        for call in itertools.chain(*stages):
            call()
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(calls, os.cpu_count() or 1), spawn, _one_thread) as pool:
        for stage in stages:
            for done in [pool.submit(call) for call in stage]:
                done.result()


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, which is later


def _unconverted(runs: Iterable[Run], wanted: list[str]) -> list[Callable[[], None]]:
    found = []
    records = sorted(filter(None, map(results.find, runs)), key=lambda r: -r.metrics["parameters"])  # the longest first
    for record in records:
        known = {row["runtime"] for row in record.conversions}
        todo = [runtime for runtime in wanted if runtime not in known]
        if todo and record.weights and record.learned:
            found.append(partial(_convert, record.run, todo))
    return found


def _convert(run: Run, todo: list[str]) -> None:
    from lwnb.edge import convert

    record = results.find(run)
    results.save_conversions(record, [*record.conversions, *convert.convert(record, todo, home() / "build" / "deploy")])


def _unweighed(shapes: Iterable[Cell], wanted: list[str]) -> list[Callable[[], None]]:
    formats = dict.fromkeys(RUNTIMES[runtime].form for runtime in wanted)
    found = []
    for cell in shapes:
        known = costs.find_footprint(_shape(cell)) or {}
        if gone := [form for form in formats if FORMATS[form].columns[0] not in known]:
            found.append(partial(_weigh, cell, gone))
    return found


def _weigh(cell: Cell, formats: list[str]) -> None:
    from lwnb.edge import export

    shape = _shape(cell)
    known = costs.find_footprint(shape) or shape
    costs.save_footprint(shape, known | export.footprint(cell, home() / "build" / "deploy", formats))


def _shape(cell: Cell) -> dict:
    return {name: getattr(cell, name) for name in costs.SHAPE}
