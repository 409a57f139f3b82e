"""The commands."""

import errno
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from lwnb.base import doors, places
from lwnb.base.errors import LwnbError, ParamsError
from lwnb.plan import facts, paramfiles, params
from lwnb.plan.params import Params

app = typer.Typer(
    help="Which small image classifier should run on my device? Train, measure and report, reproducibly.",
    epilog="Start with: lwnb plan digits; lwnb report digits. A page is a file params/<page>.yaml: a data set, "
    "or your own folder of images (copy params/folder.yaml).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Pages = Annotated[
    list[str] | None,
    typer.Argument(
        help="Pages: names of files in params/, or paths to .yaml files; cifar10:cpu is a page with a budget of its own. "
        "Default: digits."
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget", "-b", help="quick (minutes; the default), cpu (a night) or paper (a GPU); for pages that name none."
    ),
]
Changes = Annotated[
    list[str] | None, typer.Option("--param", "-p", help="A parameter as NAME=VALUE, over the files; repeatable.")
]
Studies = Annotated[
    list[str] | None,
    typer.Option("--study", "-s", help=f"Only this study, such as {next(iter(facts.STUDIES))}; repeatable."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", "-w", min=1, help="Processes that train side by side. Default: one a core.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a dask scheduler, such as tcp://10.0.0.1:8786, whose workers train instead."),
]


def main() -> None:
    """Run a command; an error that the user can mend is one message, without a traceback."""
    places.settle()
    try:
        app()
    except LwnbError as error:
        sys.exit(f"lwnb: {error}")
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        sys.exit(f"lwnb: {_unwritable(error)}")


UNWRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOSPC,
    errno.EDQUOT,
}
"""What a system says of a place that it does not let one write to: no fault of the program."""


def _unwritable(error: OSError) -> str:
    """What could not be written, why, and what helps, in one line."""
    place = re.sub(r"\.tmp\d+$", "", str(error.filename or places.home()))
    help = "make room or a way there, or name another place: LWNB_HOME is the folder of runs, images and reports"
    return f"{place}: cannot be written ({error.strerror}): {help}"


def _read(pages: list[str] | None, budget: str | None, changes: list[str] | None) -> dict[str, dict]:
    """Each page's name and its flat values: see `lwnb.plan.paramfiles.files_of`; then changes. Says where its files differ."""
    found, given = [], dict(map(paramfiles.change, changes or []))
    if "budget" in given:
        raise ParamsError(f"-p budget={given['budget']}: a budget is a file of parameters: --budget {given['budget']}")
    for text in pages or ["digits"]:
        name, _, own = text.partition(":") if not Path(text).suffix else (text, "", "")
        files = paramfiles.files_of(name, own or budget)
        differ = paramfiles.differing(files)
        said = [f"{key} {values[-1]!r}, not {values[0]!r}" for key, values in differ.items() if key not in given]
        if said:
            _tell(f"{name}: {files[-1].name} overrules {files[0].name}: {'; '.join(said)}")
        values = paramfiles.merge(files) | given
        found.append((text, paramfiles.page_name(Path(name).stem), own, values | {"title": params.check(values).title}))
    return _distinct(found)


def _distinct(found: list[tuple[str, str, str, dict]]) -> dict[str, dict]:
    """Values by page name, of pages as (text asked for, name, budget of its own, values): no two have one name.

    Where names are the same, those with a budget of their own carry it in name and title.
    """
    names, texts, pages = [name for _, name, _, _ in found], {}, {}
    for text, name, own, values in found:
        if own and names.count(name) > 1:
            name, values = paramfiles.page_name(f"{name}-{own}"), values | {"title": f"{values['title']}, budget {own}"}
        if name in pages:
            raise ParamsError(f"{texts[name]} and {text} are both page {name!r}: leave one out, or rename its file")
        texts[name], pages[name] = text, values
    return pages


def _runs(pages: dict[str, Params], only: list[str] | None) -> list:
    from lwnb.plan import studies

    names = only or list(facts.STUDIES)
    for name in names:
        doors.known(name, facts.STUDIES, "--study")
    found = studies.distinct([run for p in pages.values() for run in studies.runs(p, names)])
    if not found:
        raise ParamsError(f"{', '.join(pages)}: no part in {', '.join(names)}; see their parameter notebooks")
    return found


def _pinned(values: dict[str, dict]) -> dict[str, Params]:
    from lwnb.batch import grid

    return {name: grid.pin(params.check(page)) for name, page in values.items()}


def _exported(pages: dict[str, Params]) -> dict[str, list[str]]:
    """The runs by key that the pages on deployment show, and the runtimes that they are exported to."""
    from lwnb.edge import protocol
    from lwnb.plan import studies

    return {run.key: protocol.usable(p) for p in pages.values() for run in studies.exported(p)}


def _announce(runs: list) -> None:
    from lwnb.batch import estimates

    todo = estimates.missing(runs)
    known = [cost for cost in estimates.estimate(todo) if cost is not None]
    rest = f", and {len(todo) - len(known)} without an estimate" if len(known) < len(todo) else ""
    time = f", about {_clock(sum(known))}{rest}" if todo else ""
    typer.echo(f"{len(runs)} runs: {len(runs) - len(todo)} are there, {len(todo)} to train{time}.", err=True)


def _clock(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


@app.command(epilog=facts.listed())
def plan(pages: Pages = None, budget: Budget = None, param: Changes = None, study: Studies = None) -> None:
    """List the runs of these pages: which are there, which would train, and for how long. Trains nothing."""
    from lwnb.batch import estimates, refusals
    from lwnb.data import census

    found = _pinned(_read(pages, budget, param))
    runs = _runs(found, study)
    refusals.refuse(runs)
    for name, p in found.items():
        for sentence in census.sentences(p.digest):
            _tell(f"{name}: {sentence}")
    typer.echo(estimates.plan_table(runs).to_string(index=False, na_rep="?", float_format="{:g}".format))
    _announce(runs)


@app.command()
def run(
    pages: Pages = None,
    budget: Budget = None,
    param: Changes = None,
    study: Studies = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Train what is missing for these pages, without notebooks or book. Exit status 1 if a run failed."""
    from lwnb.batch import grid, refusals

    found = _pinned(_read(pages, budget, param))
    runs = _runs(found, study)
    refusals.refuse(runs)
    _announce(runs)
    done = grid.ensure(runs, workers, scheduler, _exported(found))
    _fail(done)


@app.command()
def tune(
    pages: Pages = None,
    budget: Budget = None,
    param: Changes = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Choose each network's learning rate on the ladder `tune_lrs` of these pages, from its middle on until the best lies inside
    those tried; write what validation prefers to params/tuned.yaml."""
    from lwnb.batch import estimates, grid, prepare, refusals, tuning
    from lwnb.edge import protocol
    from lwnb.plan import studies
    from lwnb.records import tables

    for name, p in _pinned(_read(pages, budget, param)).items():
        if len(p.tune_lrs) < 2:
            raise ParamsError(
                f"{name}: tune_lrs: {p.tune_lrs} is nothing to choose from; try -p 'tune_lrs=[1.0e-3, 4.0e-3]'"
            )
        ladders = {model: studies.ladder(p, model) for model in p.models}
        failed = []
        while not failed and (runs := [run for ladder in ladders.values() for run in tuning.wanted(ladder)]):
            refusals.refuse(runs)
            _announce(runs)
            grid.ensure(runs, workers, scheduler)
            failed = estimates.missing(runs)
        for model, ladder in ladders.items():
            lr = tuning.choose(ladder)
            typer.echo(f"{name} {model}: " + ("no choice: a run has no result" if lr is None else f"{lr:g}"))
        if wanted := studies.exported(p):  # a page shows the chosen ones, and weights do not outlive the machine
            prepare.convert(wanted, protocol.usable(p))
        if failed:
            _fail(tables.of_runs(failed))


def _fail(done, broken: list = ()) -> None:
    failed = done[done["status"] == "failed"]
    for reason, rows in failed.groupby("reason", sort=False):
        which = f"run {rows['key'].iloc[0]} ({rows['dataset'].iloc[0]}, {rows['model'].iloc[0]})"
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        _tell(f"{which}{more} failed: {reason}")
    for one in broken:
        typer.echo(f"notebook {one.line()}", err=True)
    if len(failed) or broken:
        raise typer.Exit(1)


@app.command()
def report(
    pages: Pages = None,
    budget: Budget = None,
    param: Changes = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Train what is missing, execute the notebooks, build the book, and print the path of its first page.

    Without pages and parameters: the published pages, from their records in results/, and digits. Exit status 1 if a
    run or a notebook failed; the pages of the others are there all the same.
    """
    from lwnb.batch import grid, prepare, refusals
    from lwnb.plan import studies
    from lwnb.records import results
    from lwnb.report import book
    from lwnb.report.execution import Page

    published = [] if pages or param else facts.PUBLISHED
    values = {name: paramfiles.merge(paramfiles.files_of(name)) for name in published} | _read(pages, budget, param)
    found = _pinned(values)
    runs = _runs(found, None)
    refusals.refuse(runs)
    _announce(runs)
    done = grid.ensure(runs, workers, scheduler, _exported(found))
    for p in found.values():
        if wanted := studies.exported(p):
            prepare.prepare(p, wanted, _tell)
        prepare.time_eager(studies.architectures(p))

    def fingerprint(notebook: Path, page: Page | None) -> str:
        names = [page.name] if page else list(found)
        known = (
            [] if page else [record.run.key for record in results.every()]
        )  # a claim looks at neighbours of a page's runs
        return hashlib.sha256(
            json.dumps([known, *(grid.fingerprint(found[name]) for name in names)]).encode()
        ).hexdigest()

    pinned = {name: page | found[name].model_dump(include=set(grid.PINNED)) for name, page in values.items()}
    chapters = [Page(name, found[name].title, page) for name, page in pinned.items()]
    index, executed = book.report(chapters, fingerprint)
    try:
        _fail(done, [one for one in executed if one.error])
    finally:
        typer.echo(index)


@app.command()
def runs(
    key: Annotated[str | None, typer.Option(help="Show one run whole: what was asked, what came out, where.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """A table of the runs that are there, in runs/ and results/, and of those that failed."""
    from lwnb.plan.columns import beside
    from lwnb.records import results, tables

    if key:
        record = results.find_key(key)
        if not record:
            raise ParamsError(f"--key {key}: no run has this key; lwnb runs lists those that are there")
        parts = {"folder": str(record.folder), "run": record.run.model_dump()}
        typer.echo(json.dumps(parts | {"metrics": record.metrics, "environment": record.environment}, indent=1))
        return
    frame = tables.of_runs([record.run for record in results.every()])
    columns = [
        "key",
        "dataset",
        "model",
        "arm",
        "augment",
        "seed",
        "epochs",
        "status",
        "top1",
        "n_test",
        "train_seconds",
    ]
    frame = frame[beside([c for c in columns if c in frame], frame)]
    typer.echo(frame.to_csv(index=False) if csv else frame.to_string(index=False) if len(frame) else "no runs yet")
    for failure in tables.failed():
        typer.echo(f"failed: {failure['run']['dataset']} {failure['run']['model']}: {failure['reason']}", err=True)


@app.command()
def publish(
    pages: Pages = None,
    budget: Budget = None,
    param: Changes = None,
    study: Studies = None,
    everything: Annotated[bool, typer.Option("--all", help="All finished runs, whatever their page.")] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="With their weights in half precision: a pretrained source for others.")
    ] = False,
) -> None:
    """Copy the records of these pages, and of what chose their learning rates, from runs/ to results/, where they are committed;
    without weights unless asked."""
    from lwnb.data import census
    from lwnb.plan import studies
    from lwnb.records import publishing, results

    records = results.every()
    if not everything:
        found = _pinned(_read(pages, budget, param))
        runs = _runs(found, study)
        if not weights:
            runs += [run for p in found.values() for model in p.models for run in studies.ladder(p, model)]
        wanted = {run.key for run in runs}
        records = [record for record in records if record.run.key in wanted]
    copied = publishing.publish_runs(records, weights)
    census.publish({record.run.digest for record in records})
    typer.echo(f"{len(copied)} records copied to results/, {len(records) - len(copied)} were there.")
    if everything:
        typer.echo(f"{publishing.publish_costs()} device records and footprints copied.")


@app.command()
def readme() -> None:
    """Write the opening of README.md, its figure and table, from the records of the published pages."""
    from lwnb.report import answer

    answer.write()
    typer.echo("README.md")


def _tell(line: str) -> None:
    typer.echo(line, err=True)


@app.command()
def measure(
    pages: Pages = None,
    budget: Budget = None,
    param: Changes = None,
    export: Annotated[
        Path | None, typer.Option(help="Then write this machine's records into a file, for a report elsewhere.")
    ] = None,
    add: Annotated[
        Path | None, typer.Option("--import", help="Bring in a file that --export wrote; measure nothing.")
    ] = None,
) -> None:
    """Measure what the networks of these pages cost on this machine: latency and memory on edge runtimes.

    Keep the machine idle meanwhile. On a board: lwnb measure cifar10 --budget cpu --export board.json; then, beside the
    report: lwnb measure --import board.json
    """
    from lwnb.batch import prepare
    from lwnb.edge import protocol
    from lwnb.records import costs

    if add:
        count, names = costs.read_file(add)
        typer.echo(f"{count} records of {', '.join(sorted(names))} are in runs/devices/.")
        return
    for name, p in _pinned(_read(pages, budget, param)).items():
        protocol.require(p.runtimes)
        prepare.footprints(p)
        cells = protocol.cells(p)
        todo = protocol.unmeasured(cells, p.device_rounds)
        _tell(f"{name}: {len(cells)} cells, {len(todo)} to measure, {p.device_rounds} processes each")
        protocol.measure_cells(cells, p.device_rounds, _tell)
    if export:
        typer.echo(f"{costs.write_file(export)} records of this machine in {export}")


@app.command()
def recommend(
    dataset: Annotated[str, typer.Option(help="Data set whose finished runs are compared.")] = "digits",
    device: Annotated[
        str | None, typer.Option(help="Part of the name of a device with records. Default: this machine.")
    ] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Largest file, MB (10^6 bytes).")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Longest latency of one image, ms, one thread.")] = None,
    max_memory_mib: Annotated[float | None, typer.Option(help="Highest memory, MiB above the runtime's own.")] = None,
    min_top1: Annotated[float | None, typer.Option(help="Lowest top-1, 0..1.")] = None,
) -> None:
    """Which network fits: the finished runs on a data set ranked within these limits, and why the others do not fit."""
    from pydantic import ValidationError

    from lwnb.evidence import choice
    from lwnb.records import costs

    given = {"max_size_mb": max_size_mb, "max_latency_ms": max_latency_ms, "max_memory_mib": max_memory_mib}
    try:
        limits = choice.Limits(**given, min_top1=min_top1)
    except ValidationError as error:
        first = error.errors()[0]
        raise ParamsError(
            f"--{first['loc'][0].replace('_', '-')}: {first['input']!r} is not possible: {first['msg']}"
        ) from None
    timings = costs.timings_table()
    where = choice.device_of(device, sorted(set(timings["device"])))
    found = choice.candidates(choice.records_of(dataset), where, timings)
    typer.echo(choice.text(choice.choose(found, limits), where))


@app.command()
def export(
    key: Annotated[str, typer.Argument(help="The key of a finished run; lwnb runs lists them.")],
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(facts.FORMATS)}.")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="Quantise, calibrated on training images.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file. Default: named by model, data set and key.")
    ] = None,
) -> None:
    """Write a trained network as a file that can be shipped, with its classes, preprocessing and the terms of its data."""
    from lwnb.edge import protocol
    from lwnb.records import results

    suffix = doors.known(form, facts.FORMATS, "--format").suffix
    record = results.find_key(key)
    if not record:
        raise ParamsError(f"{key}: no run has this key; lwnb runs lists those that are there")
    protocol.require_format(form)
    from lwnb.edge import convert

    name = f"{record.run.model}-{record.run.dataset}-{key}{'-int8' * int8}{suffix}"
    file = out or Path(name)
    if file.is_dir():
        raise ParamsError(f"--out {file}: this is a folder; name the file, such as --out {file / name}")
    convert.ship(record, form, int8, file)
    typer.echo(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


@app.command()
def fetch(pages: Pages = None, budget: Budget = None, param: Changes = None) -> None:
    """Get the data sets and pretrained weights of these pages, so that what follows needs no network."""
    from lwnb.data import census, sets
    from lwnb.networks import states
    from lwnb.plan import studies

    for name, p in ((name, params.check(page)) for name, page in _read(pages, budget, param).items()):
        found = sets.load(studies.source(p), p.image_size)
        typer.echo(
            f"{name}: {len(found.train.labels):,} training and {len(found.test.labels):,} test images, "
            f"{len(found.classes)} classes, digest {found.digest}"
        )
        for sentence in census.sentences(found.digest):
            typer.echo(f"{name}: {sentence}")
        for model, source in studies.published_weights(p):
            states.published(model, source)
            typer.echo(f"{name}: weights {source} of {model}")
