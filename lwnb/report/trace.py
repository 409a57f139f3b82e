"""Where a number comes from: links to the runs behind a table or figure, its data as CSV, the table of all runs."""

import base64
import html
import json
from collections.abc import Sequence

import pandas as pd

from lwnb.plan.run import RECIPE, Run
from lwnb.records import results, tables
from lwnb.records.machine import device
from lwnb.records.results import Record

PAGE = "99_reproducibility.html"
"""The page of all runs. Links to it are as from the book's first page;
`lwnb.report.book` adapts those of pages in folders."""

OUTCOME = ("status", "test top-1", "epochs", "validation top-1", "wall time, s", "started", "machine", "commit")
"""The columns of the table of all runs that say what came of a run."""

VARYING = ("dataset", "digest", "seed", "split_seed")
"""Fields of a run that have a column of their own, or are seen elsewhere."""


def keys_in(frame: pd.DataFrame) -> list[str]:
    """The keys of the runs behind a table, each once: its column `key` holds one or several, separated by blanks."""
    if "key" not in frame:
        return []
    return list(dict.fromkeys(key for cell in frame["key"].dropna() for key in cell.split()))


def links(keys: Sequence[str]) -> str:
    """HTML: links to the rows of runs; several fold into their number."""
    found = [f'<a href="{PAGE}#run-{key}"><code>{key}</code></a>' for key in keys]
    if len(found) < 2:
        return "".join(found)
    return f"<details><summary>{len(found)} runs</summary>{' '.join(found)}</details>"


def csv(frame: pd.DataFrame) -> str:
    """HTML: a link that saves a table as CSV, from inside the page: it needs no server and no network."""
    code = base64.b64encode(frame.to_csv(index=False).encode()).decode()
    return f'<a download="data.csv" href="data:text/csv;base64,{code}">data as CSV</a>'


def line(frame: pd.DataFrame, keys: Sequence[str] | None = None) -> str:
    """HTML: what stands below a table or figure: the runs behind it, and its data."""
    keys = keys_in(frame) if keys is None else keys
    return " · ".join(filter(None, [links(keys) and f"From {links(keys)}", csv(frame)]))


def curve(values: Sequence[float], width: int = 90, height: int = 18) -> str:
    """HTML: a rate 0..1 over epochs, as a line."""
    steps = max(1, len(values) - 1)
    points = " ".join(f"{width * i / steps:.0f},{height * (1 - v):.1f}" for i, v in enumerate(values))
    shape = f'<polyline points="{points}" fill="none" stroke="currentColor"/>'
    title = f"<title>{len(values)} epochs, last {values[-1]:.3f}</title>"
    return f'<svg role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}">{title}{shape}</svg>'


def runs(wanted: Sequence[Run]) -> str:
    """HTML: all runs of a data set: what they share, said once; then a row each, which is where links lead.

    A row has what came of the run, its curve, wall time and place, and what was asked of it where runs differ.
    """
    asked = [run.model_dump() for run in wanted]
    shared = {k: v for k, v in asked[0].items() if all(one[k] == v for one in asked) and k != "seed"}
    differ = [k for k in asked[0] if k not in shared and k not in VARYING]
    head = ["run", *OUTCOME, "seed", *differ]
    rows = [_row(run, [one[k] for k in ("seed", *differ)]) for run, one in zip(wanted, asked, strict=True)]
    common = ", ".join(f"{k} <code>{html.escape(json.dumps(v))}</code>" for k, v in shared.items())
    cells = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in head)
    data = csv(tables.of_runs(list(wanted)))
    return f"<p>All have: {common}.</p><table><thead><tr>{cells}</tr></thead>{''.join(rows)}</table><p>{data}</p>"


def _row(run: Run, asked: Sequence) -> str:
    record = results.find(run)
    cells = [f"<code>{run.key}</code>", results.status(run)]
    cells += _outcome(record) if record else ["–"] * (len(OUTCOME) - 1)
    cells += [html.escape(f"{value}") for value in asked]
    return f'<tr id="run-{run.key}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _outcome(record: Record) -> list[str]:
    """What `OUTCOME` says, but for the status."""
    about, known = record.environment, record.metrics
    where = device(about["machine"]) + f"; {about['device']}, threads {about['threads']}"
    top1 = f"{known['top1']:.3f}" if record.learned else "–"
    shown = [top1, str(known["epochs_run"]), curve(record.history["val_top1"].tolist()), f"{about['wall_seconds']:.0f}"]
    return [*shown, about["started"][:16], html.escape(where), about["commit"][:10] + about["commit"][40:]]


def older(wanted: Sequence[Run]) -> list[str]:
    """The keys of the runs that an older recipe made, or that start from the weights of such a run."""
    found = []
    for run in wanted:
        source = results.find_key(run.parent) if run.parent else None
        if min(run.recipe, source.run.recipe if source else run.recipe) < RECIPE:
            found.append(run.key)
    return found
