"""The front desk: each command parses what is asked, calls a room, and prints."""

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from lwnb import __version__
from lwnb.base import doors, places
from lwnb.base.errors import LwnbError, ParamsError
from lwnb.plan import facts, paramfiles


class Sections(TyperGroup):
    """Its help lists the commands under what a person wants, in the order of this file."""

    def format_commands(self, ctx, formatter) -> None:
        width = max(map(len, self.commands))
        for section, some in groupby(self.commands.items(), key=lambda item: item[1].rich_help_panel):
            with formatter.section(section):
                room = formatter.width - width - 6
                formatter.write_dl([(name.ljust(width), one.get_short_help_str(room)) for name, one in some])


app = typer.Typer(
    cls=Sections,
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
        help="Pages: names of files in params/, or paths to .yaml files; cifar10:cpu is a page with a budget of "
        "its own. Default: digits."
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
        if not (reason := places.unwritable(error)):
            raise
        sys.exit(f"lwnb: {reason}")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What stands before a command."""


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _read(pages: list[str] | None, budget: str | None, changes: list[str] | None) -> dict[str, dict]:
    """The flat values of the pages asked for, by their names; says where their files differ."""
    values, lines = paramfiles.pages(pages or ["digits"], budget, changes or [])
    for line in lines:
        _tell(line)
    return values


def _end(runs, broken: list = ()) -> None:
    """Say what failed, a reason once; if anything did, end with exit status 1."""
    from lwnb.records import tables

    lines = tables.reasons(runs) + [f"notebook {one.line()}" for one in broken]
    for line in lines:
        _tell(line)
    if lines:
        raise typer.Exit(1)


@app.command(rich_help_panel="Look", epilog=facts.listed())
def plan(pages: Pages = None, budget: Budget = None, param: Changes = None, study: Studies = None) -> None:
    """List the runs of these pages, and how long they would take.

    Says which are there and which would train, and what is known of the images. Trains nothing.
    """
    from lwnb.batch import asked, estimates

    wanted = asked.ask(_read(pages, budget, param), study)
    for line in wanted.about():
        _tell(line)
    table = estimates.plan_table(wanted.ahead.runs, wanted.ahead)
    typer.echo(table.to_string(index=False, na_rep="?", float_format="{:g}".format))
    _tell(wanted.ahead.line())


@app.command(rich_help_panel="Look")
def runs(
    key: Annotated[str | None, typer.Option(help="Show one run whole: what was asked, what came out, where.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """List the finished runs, and those that failed.

    Finished ones from runs/ and results/; with --key, everything about one of them.
    """
    from lwnb.records import results, tables

    if key:
        record = results.of_key(key)
        parts = {"folder": str(record.folder), "run": record.run.model_dump()}
        typer.echo(json.dumps(parts | {"metrics": record.metrics, "environment": record.environment}, indent=1))
        return
    frame = tables.listing()
    typer.echo(frame.to_csv(index=False) if csv else frame.to_string(index=False) if len(frame) else "no runs yet")
    for failure in tables.failed():
        _tell(f"failed: {failure['run']['dataset']} {failure['run']['model']}: {failure['reason']}")


@app.command(rich_help_panel="Look")
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
    """Rank the finished networks within the limits of a device.

    Says which network fits, and of the others why they do not.
    """
    from lwnb.evidence import choice

    limits = {"max_size_mb": max_size_mb, "max_latency_ms": max_latency_ms, "max_memory_mib": max_memory_mib}
    typer.echo(choice.recommend(dataset, device, **limits, min_top1=min_top1))


@app.command(rich_help_panel="Train")
def fetch(pages: Pages = None, budget: Budget = None, param: Changes = None) -> None:
    """Get images and pretrained weights, to work offline later.

    Says what was found: images a class, copies, and what was left out.
    """
    from lwnb.batch import asked

    for name, page in _read(pages, budget, param).items():
        for line in asked.fetch(name, page):
            typer.echo(line)


@app.command(rich_help_panel="Train")
def run(
    pages: Pages = None,
    budget: Budget = None,
    param: Changes = None,
    study: Studies = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Train what is missing, without notebooks or book.

    Exit status 1 if a run failed; the others are kept.
    """
    from lwnb.batch import asked

    wanted = asked.ask(_read(pages, budget, param), study)
    _tell(wanted.ahead.line())
    _end(wanted.train(workers, scheduler))


@app.command(rich_help_panel="Train")
def tune(
    pages: Pages = None,
    budget: Budget = None,
    param: Changes = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Choose each network's learning rate on validation.

    Tries the rates `tune_lrs` of these pages, from the middle of the list on, until the best lies inside those tried,
    and writes it to params/tuned.yaml.
    """
    from lwnb.batch import asked, prepare, tuning
    from lwnb.records import tables

    for name, p in asked.pin(_read(pages, budget, param)).items():
        done = tuning.tune(name, p, workers, scheduler, _tell)
        for model, lr in done.rates.items():
            typer.echo(f"{name} {model}: " + ("no choice: a run has no result" if lr is None else f"{lr:g}"))
        prepare.convert_shown(p)  # the chosen ones: weights do not outlive the machine
        if done.failed:
            _end(tables.of_runs(done.failed))


@app.command(rich_help_panel="Report")
def report(
    pages: Pages = None,
    budget: Budget = None,
    param: Changes = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Train what is missing, and make the pages of the report.

    Executes the notebooks, builds the book, and prints the path of its first page. Without pages and parameters: the
    published pages, from their records in results/, and digits. Exit status 1 if a run or a notebook failed; the pages
    of the others are there all the same.
    """
    from lwnb.report import make

    values = {} if pages or param else make.published()
    made = make.report(values | _read(pages, budget, param), workers, scheduler, _tell, typer.echo)
    try:
        _end(made.runs, made.broken)
    finally:
        typer.echo(made.index)


@app.command(rich_help_panel="Report")
def readme() -> None:
    """Write the opening of README.md.

    Its figure and table come from the records of the published pages.
    """
    from lwnb.report import make

    make.readme()
    typer.echo("README.md")


@app.command(rich_help_panel="Device")
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
    """Measure latency and memory on this machine.

    Of the networks of these pages, by each of their runtimes. Keep the machine idle meanwhile. On a board: lwnb measure
    cifar10 --budget cpu --export board.json; then, beside the report: lwnb measure --import board.json
    """
    from lwnb.batch import asked, prepare
    from lwnb.records import costs

    if add:
        count, names = costs.read_file(add)
        typer.echo(f"{count} records of {', '.join(sorted(names))} are in runs/devices/.")
        return
    for name, p in asked.pin(_read(pages, budget, param)).items():
        prepare.measure(p, lambda line, name=name: _tell(f"{name}: {line}"))
    if export:
        typer.echo(f"{costs.write_file(export)} records of this machine in {export}")


@app.command(rich_help_panel="Device")
def export(
    key: Annotated[str, typer.Argument(help="The key of a finished run; lwnb runs lists them.")],
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(facts.FORMATS)}.")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="Quantise, calibrated on training images.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file. Default: named by model, data set and key.")
    ] = None,
) -> None:
    """Write a trained network as a file to ship.

    The file also holds its classes, preprocessing and the terms of its data.
    """
    from lwnb.edge import protocol
    from lwnb.records import results

    suffix = doors.known(form, facts.FORMATS, "--format").suffix
    record = results.of_key(key)
    protocol.require_format(form)
    from lwnb.edge import convert

    name = f"{record.run.model}-{record.run.dataset}-{key}{'-int8' * int8}{suffix}"
    file = out or Path(name)
    if file.is_dir():
        raise ParamsError(f"--out {file}: this is a folder; name the file, such as --out {file / name}")
    if record.shortfall:
        _tell(f"run {key} did not learn: {record.shortfall}")
    convert.ship(record, form, int8, file)
    typer.echo(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


@app.command(rich_help_panel="Records")
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
    """Copy records to results/, where they are committed.

    Those of these pages, and of what chose their learning rates, from runs/; without weights unless asked.
    """
    from lwnb.batch import asked
    from lwnb.records import publishing

    copied, there = asked.publish(None if everything else _read(pages, budget, param), study, weights)
    typer.echo(f"{copied} records copied to results/, {there} were there.")
    if everything:
        typer.echo(f"{publishing.publish_costs()} device records and footprints copied.")
