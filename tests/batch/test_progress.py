import io
import sys
import time

import pytest
from planted import RUN

from lwnb.batch import progress
from lwnb.plan.run import Run

RUNS = [Run(**RUN | {"seed": seed}) for seed in range(3)]
COSTS = {RUNS[0].key: 10.0, RUNS[1].key: 30.0, RUNS[2].key: None}  # nothing is known of the third: as the others, 20 s


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_one_line_a_run_with_the_pace_and_the_time_left(clock, capsys):
    import ipykernel.kernelspec  # noqa: F401 - as a process does that executes notebooks

    with progress.Progress(COSTS) as bar:
        clock[0] = 15.0
        bar.epoch(RUNS[0], {"epoch": 1, "images": 3000})
        bar.end(RUNS[0], "done")
        clock[0] = 60.0
        bar.end(RUNS[1], "failed: no memory")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    # 10 of 60 estimated seconds took 15: 75 are left
    assert lines[0] == f"1/3 runs, 200 images/s, 01:15 left: digits resnet18 {RUNS[0].key} done"
    # 40 of 60 took 60: 30 are left
    assert lines[1] == f"2/3 runs, 50 images/s, 00:30 left: digits resnet18 {RUNS[1].key} failed: no memory"


def test_a_terminal_gets_a_bar_that_moves_with_every_epoch_and_never_backwards(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.Progress(COSTS) as bar:
        for epoch, reached in ((1, 10.0), (2, 20.0), (1, 20.0)):  # of 3 epochs; the worker died and began again
            bar.epoch(RUNS[1], {"epoch": epoch, "images": 100})
            assert bar.bar.n == pytest.approx(reached)
        for run in RUNS:
            bar.end(run, "done")
        assert bar.bar.n == pytest.approx(bar.bar.total) == 60
    assert "3/3 runs" in screen.getvalue() and "100%" in screen.getvalue()
