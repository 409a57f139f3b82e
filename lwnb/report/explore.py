"""Sliders over the records, for JupyterLab: which networks fit, and the front of those that do."""

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython.display import display

from lwnb.evidence import choice
from lwnb.report import figures

LIMITS = {
    "max_size_mb": ("size_mb", "file, MB"),
    "max_latency_ms": ("latency_ms", "latency, ms"),
    "max_memory_mib": ("memory_mib", "memory, MiB"),
}
"""The limit of a slider, the column that it is about, and what stands beside it."""


class Explorer(widgets.VBox):
    """A slider a limit, and below them a figure and a table that answer as the sliders move.

    Parameters
    ----------
    found : `lwnb.evidence.choice.candidates`
    device : the device that the latencies belong to
    """

    def __init__(self, found: pd.DataFrame, device: str):
        self.found = found
        self.sliders = {limit: _slider(found[column], text) for limit, (column, text) in LIMITS.items()}
        tops = found["top1"]
        low, high = np.floor(100 * tops.min()) / 100, np.ceil(100 * tops.max()) / 100
        self.sliders["min_top1"] = widgets.FloatSlider(low, min=low, max=high, step=0.01, description="top-1 ≥")
        self.starts = {name: slider.value for name, slider in self.sliders.items()}
        self.head, self.shown = widgets.HTML(), widgets.Output()
        for slider in self.sliders.values():
            slider.observe(lambda _: self.refresh(), "value")
        super().__init__([widgets.HTML(f"On {device}"), *self.sliders.values(), self.head, self.shown])
        self.refresh()

    def limits(self) -> choice.Limits:
        """What the sliders say; one that stands where it began says nothing."""
        return choice.Limits(**{name: s.value for name, s in self.sliders.items() if s.value != self.starts[name]})

    def refresh(self) -> None:
        """Rank the candidates anew and draw those that fit."""
        self.ranked = choice.choose(self.found, self.limits())
        fits = self.ranked[self.ranked["verdict"] == choice.FITS]
        best = (
            f"best: <b>{figures.name(fits.iloc[0]['model'])}</b> {fits.iloc[0]['precision']}"
            if len(fits)
            else "none fits"
        )
        self.head.value = f"{len(fits)} of {len(self.ranked)} fit; {best}"
        self.shown.clear_output(wait=True)
        with self.shown:
            if len(fits):
                figures.show(
                    figures.costs(fits, ["latency_ms", "size_mb"]),
                    "Test top-1 of the networks that fit against their cost",
                )
            columns = [
                "verdict",
                "model",
                "precision",
                "runtime",
                "top1",
                "size_mb",
                "latency_ms",
                "memory_mib",
                "why",
                "behind",
            ]
            display(figures.table(self.ranked, columns))


def _slider(values: pd.Series, text: str) -> widgets.Widget:
    """From the lowest known value to the highest, in logarithmic steps."""
    known = values.dropna()
    if known.empty or known.min() <= 0:
        return widgets.FloatSlider(1, min=0, max=1, description=f"{text}: not known", disabled=True)
    low, high = np.log10(known.min()), np.log10(known.max()) + 0.01
    style = {"description_width": "initial"}
    return widgets.FloatLogSlider(10**high, base=10, min=low, max=high, step=0.01, description=f"{text} ≤", style=style)
