"""The answer in short: the networks of a page by accuracy and by what their files cost, and the opening of the
README."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lwnb.base import disk
from lwnb.base.errors import ParamsError
from lwnb.base.places import CHECKOUT
from lwnb.evidence import choice, compare, deployed, stats
from lwnb.plan import facts, paramfiles, studies
from lwnb.plan.columns import COLUMNS, guessed, number, unequal
from lwnb.plan.facts import name
from lwnb.plan.params import Params
from lwnb.records import costs, results, tables
from lwnb.report import figures, findings

BEGIN, END = "<!-- made by `lwnb readme` -->\n", "<!-- end -->"

FIGURE = "book/assets/answer.svg"


def pages() -> list[Params]:
    """The published pages, in the order of the README's columns."""
    return [paramfiles.read(*paramfiles.files_of(name)) for name in facts.PUBLISHED]


def networks(p: Params, timings: pd.DataFrame, device: str | None = None) -> pd.DataFrame:
    """A row a network of a page: means over the seeds as in `lwnb.evidence.compare.summary`, and its file as in
    `lwnb.evidence.choice.shipped`.

    Latencies are those of `device`, else of the one that the page speaks of, one image at a time on one thread; what
    INT8 leaves is that of the first seed. `noise` is the share by which ONNX Runtime's latencies move there when
    measured again.
    """
    runs, device = studies.architectures(p), device or deployed.here(deployed.of_page(p, timings))
    files = choice.shipped(choice.candidates(results.learned(studies.deployment(p)), device, timings))
    moved = deployed.noise(timings).set_index(["device", "runtime"])["noise"].get((device, facts.REFERENCE), math.nan)
    return compare.summary(tables.of_runs(runs)).merge(files, on="model", how="left").assign(device=device, noise=moved)


def short(frame: pd.DataFrame) -> str:
    """The short answer in words: the networks that no other one beats, and how much top-1 each loses to the best.

    A network is beaten when another one is as accurate and costs less. That is asked twice: by the size of the INT8
    file, and by its latency. Latencies that differ by less than the noise of measuring count as equal, and then the
    more accurate network wins.

    Parameters
    ----------
    frame : the rows of `networks`
    """
    told, beaten, noise = [], set(frame.dropna(subset=["top1"])["model"]), frame["noise"].max()
    for column, unit, within in (("int8_mb", "MB", 0), ("int8_ms", "ms", noise)):
        known = frame.dropna(subset=["top1", column]).sort_values(column, ascending=False)
        if len(known) < 2:
            return ""
        best, *others = known[stats.front(deployed.levelled(known[column], within), known["top1"])].itertuples()
        beaten -= {best.model, *(row.model for row in others)}
        size = {row.model: f"{number(getattr(row, column), COLUMNS[column])} {unit}" for row in (best, *others)}
        less = [f"{name(row.model)} {best.top1 - row.top1:.3f} less with {size[row.model]}" for row in others]
        told.append("; ".join([f"{name(best.model)} has top-1 {best.top1:.3f} with {size[best.model]}", *less]))
    behind = ", ".join(name(model) for model in frame["model"] if model in beaten)
    equal = f" (equal within {noise:.0%}, the noise of the protocol)" if noise > 0 else ""
    return (
        f"**In short**, as trained here. By the INT8 file: {told[0]}. By its latency{equal}: {told[1]}."
        + f" On neither front, since others are as accurate and cost less: {behind}." * bool(behind)
        + _unequal(frame)
    )


def _unequal(frame: pd.DataFrame) -> str:
    """What stands beside top-1 where the classes of a page are unequal, as a sentence; empty where they are equal."""
    known = frame.dropna(subset=["top1"])
    if not any(map(unequal, known["guess_top1"], known["num_classes"])):
        return ""
    each = ", ".join(f"{name(row.model)} {row.macro_f1:.3f}" for row in known.itertuples())
    guess = known["guess_top1"].max()
    return f" Classes are unequal: always guessing the largest has top-1 {guess:.3f}; macro F1 of {each}."


def frames(pages: Sequence[Params]) -> list[pd.DataFrame]:
    """What `networks` says of each page on the device with the most records for it: the same on every machine."""
    timings = costs.timings_table()
    return [networks(p, timings, deployed.most(deployed.of_page(p, timings))) for p in pages]


def opening(pages: Sequence[Params], frames: Sequence[pd.DataFrame]) -> str:
    """A figure and a table of these pages in Markdown, and beneath them what they rest on: seeds, images, budget,
    machine.

    `frames` are those of the pages; files and latencies are those of the first.
    """
    costs = frames[0].set_index("model")[["parameters", "macs", "int8_mb", "fp32_ms", "int8_ms"]]
    table = pd.DataFrame({"network": costs.index.map(name)}, index=costs.index)
    for p, frame in zip(pages, frames, strict=True):
        rows = frame.dropna(subset=["top1"]).set_index("model").itertuples()
        table[f"top-1, {p.title}"] = pd.Series({row.Index: _rate(row) for row in rows}, dtype=object)
    for column, values in costs.items():
        table[COLUMNS[column].label] = [number(value, COLUMNS[column]) for value in values]
    rows = [list(table), ["---"] * len(table.columns), *table.fillna("–").to_numpy().tolist()]
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    basis = [_basis(p, frame) for p, frame in zip(pages, frames, strict=True)]
    alt = f"Test top-1 on {pages[0].title} against the size of the INT8 file and the latency in fp32"
    opened = f"{pages[0].title}. {short(frames[0])}"
    parts = [opened, f"![{alt}]({FIGURE})", "\n".join(lines), "\n".join(basis), _costs(pages[0], frames[0])]
    return "\n\n".join(parts) + "\n"


def _rate(row) -> str:
    return f"{row.top1:.3f} ({row.interval}{guessed(row.guess_top1, row.macro_f1, row.num_classes)})"


def _basis(p: Params, frame: pd.DataFrame) -> str:
    known = frame.dropna(subset=["top1"])
    seeds = sorted({int(count) for count in known["seeds"]})
    records = [record for record in map(results.find, studies.architectures(p)) if record]
    said = (
        f"- {p.title}: {int(frame['n_train'].max()):,} training, {int(frame['n_val'].max()):,} validation and "
        f"{int(frame['n_test'].max()):,} test images at {p.image_size} px, {' or '.join(map(str, seeds))} "
        f"seed{'s' * (seeds != [1])}, {p.epochs} epochs from scratch at output stride "
        f"{p.output_stride}, budget `{p.budget}`{findings.made(records)}."
    )
    return " ".join([said, *findings.absent(p)])


def _costs(p: Params, frame: pd.DataFrame) -> str:
    return (
        "In brackets the 95 % interval: Wilson's over the test images or Student's t over the seeds, whichever reaches "
        f"further. MACs, files and latencies are those of the networks for {p.title} at output stride "
        f"{p.output_stride}: {facts.RUNTIMES[facts.REFERENCE].title}, one image on one thread of "
        f"{frame['device'].iloc[0]}. Another output stride has other costs, and another device ranks the networks "
        "otherwise; `make report` shows every run, and what these cannot say."
    )


def write(readme: Path = CHECKOUT / "README.md") -> None:
    """Put `opening` between its two marks in the README, and its figure beside the book's.

    Raises
    ------
    ParamsError
        No page is published, or the README has no such marks; nothing is written.
    """
    text, published = readme.read_text(encoding="utf-8"), pages()
    if not published:
        raise ParamsError(
            "no page is published: lwnb.plan.facts.PUBLISHED names none whose every run stands in results/"
        )
    if BEGIN not in text or END not in text:
        raise ParamsError(f"{readme}: has no lines {BEGIN.strip()!r} and {END!r} for the opening to stand between")
    found = frames(published)
    middle = re.compile(f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", re.DOTALL)
    figure = figures.costs(found[0], ["int8_mb", "fp32_ms"])
    disk.write(readme.parent / FIGURE, figures.svg(figure))
    disk.write(readme, middle.sub(lambda _: opening(published, found), text).encode())
