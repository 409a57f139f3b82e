"""Published figures beside this report's own: what differs between the two,
and a difference only where nothing does."""

from pathlib import Path
from typing import Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict

from lwnb.base.places import CHECKOUT
from lwnb.evidence.arms import Evidence
from lwnb.evidence.compare import summary
from lwnb.plan.columns import COLUMNS, number
from lwnb.plan.facts import DATASETS, STUDIES
from lwnb.plan.params import Params
from lwnb.plan.run import Dataset, Start


class Figure(BaseModel):
    """A figure of a source, and its protocol as far as the source states it (None: not stated).

    `quoted` is the figure as it stands in the source; `range` the same in the units of this report's records.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    column: Literal["top1", "parameters", "macs", "size_bytes"]
    quoted: str
    range: tuple[float, float]
    source: str
    dataset: Dataset | None = None
    weights: Start = "none"
    image_size: int | None = None
    epochs: int | None = None
    classes: int | None = None
    stem: str = "as published"


def quoted(file: Path = CHECKOUT / "book" / "published.yaml") -> list[Figure]:
    """The figures of a YAML file."""
    return [Figure(**entry) for entry in yaml.safe_load(file.read_text(encoding="utf-8"))]


def beside(p: Params, evidence: dict[str, Evidence]) -> pd.DataFrame:
    """A row a published figure of the page's data set: the page's own figure, and what differs in how it came about."""
    rows = [_row(figure, p, evidence) for figure in quoted() if figure.dataset in (None, p.dataset)]
    return pd.DataFrame([row for row in rows if row])


def _row(figure: Figure, p: Params, evidence: dict[str, Evidence]) -> dict | None:
    own = _own(figure, p, evidence)
    if own is None:
        return None
    unlike = _unlike(figure, own, p) if len(own) else ["no run of this page"]
    value = own.get(figure.column)
    low, high = figure.range
    distance = "too different to compare"
    if not unlike:
        away = max(low - value, 0) - max(value - high, 0)
        distance = "inside" if away == 0 else f"{-away * COLUMNS[figure.column].scale:+.3g}"
    what, _, unit = COLUMNS[figure.column].label.partition(", ")
    shown = f"{number(value, COLUMNS[figure.column])} {unit}".strip() if len(own) else None
    if figure.column == "top1" and len(own):
        shown += f" ({own.interval})"
    row = {
        "model": figure.model,
        "quantity": what,
        "published": figure.quoted,
        "measured": shown,
    }
    return row | {"distance": distance, "protocol": "; ".join(unlike), "source": figure.source, "key": own.get("key")}


def _own(figure: Figure, p: Params, evidence: dict[str, Evidence]) -> pd.Series | None:
    """This page's row for the same network and start: of several, the one with the most training images, and then the
    highest validation top-1; empty where there is none, None where the page never asks for the network."""
    frames = [evidence[study].frame for study, row in STUDIES.items() if row.quoted]
    every = pd.concat([frame[frame["classes"] == "all"] for frame in frames]).drop_duplicates("key")
    mine = every[every["model"] == figure.model]
    if mine.empty:
        return None
    if figure.column == "top1":
        mine = mine[(mine["weights"] == figure.weights) & ~mine["freeze"]].dropna(subset=["top1"])
    rows = summary(mine.dropna(subset=[figure.column]))
    return rows.sort_values(["n_train", "val_top1"]).iloc[-1] if len(rows) else pd.Series(dtype=object)


def _unlike(figure: Figure, own: pd.Series, p: Params) -> list[str]:
    """What differs in the protocol, or is not stated by the source."""
    found = []
    if figure.classes and figure.classes != own.num_classes:
        found.append(f"{figure.classes:,} classes, here {own.num_classes:.0f}")
    if figure.column in ("top1", "macs") and figure.image_size != own.image_size:
        found.append(f"image size {_said(figure.image_size, ' px')}, here {own.image_size:.0f} px")
    if figure.column == "macs" and p.output_stride != 32:
        found.append(f"output stride as published, here {p.output_stride}")
    if figure.column != "top1":
        return found
    if figure.epochs != own.epochs:
        found.append(f"epochs {_said(figure.epochs)}, here {own.epochs:.0f}")
    if figure.stem != "as published" or p.output_stride != 32:
        found.append(f"{figure.stem}, here output stride {p.output_stride}")
    train, test = DATASETS[figure.dataset].whole
    if own.n_train + own.n_val < train:
        found.append(f"{train:,} training images, here {own.n_train + own.n_val:,.0f}")
    return [*found, f"{test:,} test images, here {own.n_test:,.0f}"] if own.n_test < test else found


def _said(value, unit: str = "") -> str:
    return "not stated" if value is None else f"{value}{unit}"
