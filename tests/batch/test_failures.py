"""What stops a run is told, and stops no other: Ctrl-C, SIGTERM, memory, a bad image, a damaged checkpoint."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from faults import Child, batch
from trained import numbers, tiny
from trees import by_class, folder

from lwnb.batch import grid
from lwnb.plan import studies
from lwnb.plan.params import check
from lwnb.records import failures, folders, results, tables
from lwnb.training import train

LWNB = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from lwnb.cli import main; main()"
"""The command, in a shell that listens to Ctrl-C, whatever the one that runs the tests does."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "stop", "status"), [(signal.SIGINT, KeyboardInterrupt, None), (signal.SIGTERM, SystemExit, 143)]
)
def test_a_signal_ends_a_run_as_it_ends_any_program_and_the_run_resumes(
    house, tmp_path, monkeypatch, sent, stop, status
):
    run, handlers = tiny(), [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    whole = train.train(run)
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "stopped"))
    with pytest.raises(stop) as told:
        train.train(run, on_epoch=lambda row: after(row, sent))
    assert getattr(told.value, "code", None) == status
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert results.status(run) == "interrupted" and results.every() == []
    resumed = train.train(run)
    assert resumed.environment["resumed"] and numbers(resumed) == numbers(whole)


def after(row: dict, sent: int) -> None:
    if row["epoch"] == 2:
        signal.raise_signal(sent)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_ctrl_c_ends_a_batch_within_seconds_and_nothing_is_lost(house, tmp_path, monkeypatch, seeds):
    """One run in the command's own process, and two in workers; the terminal sends the signal to all of them."""
    values = {"models": ["squeezenet1_1"], "train_size": 60, "test_size": 50, "epochs": 150, "seeds": seeds}
    runs = studies.architectures(grid.pin(check(values)))
    changes = [x for name, value in values.items() for x in ("-p", f"{name}={value}".replace("'", ""))]
    command = [sys.executable, "-c", LWNB, "run", "digits", "-s", "01_architectures", *changes]
    child = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while not list(house.glob("runs/*/*/*.part/checkpoint.ckpt")):
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.02)
    began = time.perf_counter()
    os.killpg(child.pid, signal.SIGINT)
    said = child.communicate(timeout=60)[1]
    print(f"{time.perf_counter() - began:.1f} s\n{said}")
    assert child.returncode not in (0, None) and time.perf_counter() - began < 15
    assert results.every() == [] and tables.failed() == [], said
    assert {results.status(run) for run in runs} <= {"interrupted", "missing"}
    Child(batch, runs, home=house).end()
    resumed = [results.find(run) for run in runs]
    Child(batch, runs, home=tmp_path / "undisturbed").end()
    assert any(record.environment["resumed"] for record in resumed)
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "undisturbed"))
    assert [numbers(record) for record in resumed] == [numbers(results.find(run)) for run in runs]


def little_memory(train):
    """This process gets a GiB more than it has."""
    import resource

    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30,) * 2)
    return train


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_a_run_without_enough_memory_is_told_and_the_next_one_goes_on(house):
    big, small = (tiny(models=["squeezenet1_1"], epochs=1, image_size=size) for size in (512, 32))
    (status, reason), (other, why) = Child(batch, [big, small], little_memory, home=house).end()[1]
    assert (status, other) == ("failed", "did not learn") and "memory" in reason, (reason, why)
    assert "Traceback" in failures.failure(big)["traceback"]


def test_a_bad_image_stops_its_own_run_alone(house):
    """The images were pinned, and one is damaged afterwards."""
    place = folder(house / "pictures", by_class("train/", "test/", each=8))
    p = grid.pin(check({"dataset": "folder", "data_root": str(place), "digest": "", "image_size": 32, "epochs": 1}))
    (run,) = studies.architectures(p.model_copy(update={"models": ["squeezenet1_1"], "train_size": 0}))
    (place / "train/cat/3.png").write_bytes(b"no image")
    table = grid.ensure([run, tiny(epochs=1)], workers=1)
    assert table["status"][0] == "failed" and table["status"][1] != "failed"
    assert "train/cat/3.png" in table["reason"][0] and "train/cat/3.png" in tables.failed()[0]["traceback"]


@pytest.mark.slow
def test_a_damaged_checkpoint_says_what_to_do(house):
    """As a file system that does not keep the order of writes can leave it."""
    run, checkpoint = tiny(), folders.part(tiny()) / "checkpoint.ckpt"
    with pytest.raises(KeyboardInterrupt):
        train.train(run, on_epoch=lambda row: after(row, signal.SIGINT))
    checkpoint.write_bytes(checkpoint.read_bytes()[:10_000])
    ((_, reason),) = grid.ensure([run], workers=1)[["status", "reason"]].values
    assert str(checkpoint) in reason and "Delete it" in reason
    checkpoint.unlink()
    assert grid.ensure([run], workers=1)["status"][0] in ("done", "did not learn")
