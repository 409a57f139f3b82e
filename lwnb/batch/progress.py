"""How far a batch of runs is: a bar on a terminal and in JupyterLab, one line a run in a log."""

import sys
import time

from tqdm import tqdm

from lwnb.plan.run import Run


class Progress:
    """Runs done, images a second and the time left, for the runs of one batch.

    Parameters
    ----------
    costs : the runs to train, by key, with the estimated seconds of each; None where nothing is known
    """

    def __init__(self, costs: dict[str, float | None]):
        known = [cost for cost in costs.values() if cost]
        usual = sum(known) / len(known) if known else 1.0
        self.costs = {key: cost or usual for key, cost in costs.items()}
        self.share = dict.fromkeys(costs, 0.0)
        self.done, self.images, self.began = 0, 0, time.monotonic()
        live = sys.stderr.isatty() or "ipykernel.kernelapp" in sys.modules  # in a kernel, not where one is started
        form = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}, {remaining} left]"
        total = sum(self.costs.values())
        self.bar = tqdm(total=total, bar_format=form, smoothing=0, disable=not live or not costs)
        self._show()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()

    def epoch(self, run: Run, row: dict) -> None:
        """An epoch has ended: its number and its images."""
        self.images += row["images"]
        self._advance(run, row["epoch"] / run.epochs)

    def end(self, run: Run, status: str) -> None:
        """A run has ended."""
        self.done += 1
        self._advance(run, 1.0)
        if self.bar.disable:
            print(f"{self._state()}: {run.dataset} {run.model} {run.key} {status}", file=sys.stderr, flush=True)

    def _advance(self, run: Run, share: float) -> None:
        gain = max(0.0, share - self.share[run.key])  # a run that was started again elsewhere does not count backwards
        self.share[run.key] += gain
        self.bar.update(gain * self.costs[run.key])
        self._show()

    def _show(self) -> None:
        self.bar.set_description_str(self._state())

    def _state(self) -> str:
        seconds = time.monotonic() - self.began
        pace = f", {self.images / seconds:,.0f} images/s" if self.images else ""
        left = f", {self._left(seconds)} left" if self.bar.disable and 0 < self.done < len(self.costs) else ""
        return f"{self.done}/{len(self.costs)} runs{pace}{left}"

    def _left(self, seconds: float) -> str:
        """The time left, from the estimates of what is done and what is not, and the time that the former took."""
        total = sum(self.costs.values())
        done = sum(self.share[key] * cost for key, cost in self.costs.items())
        return tqdm.format_interval(seconds * (total - done) / done)
