"""Nothing is lost: processes killed at every step and at random moments, a full disk, two batches at once."""

import os
import random
import shutil
import subprocess
import time
from collections import Counter

import pytest
import torch
from faults import Child, batch, counted, load, publish, store

from lwnb.batch import grid
from lwnb.data import sets
from lwnb.plan import studies
from lwnb.plan.params import check
from lwnb.plan.run import Source
from lwnb.records import folders, results

TINY = {"train_size": 60, "test_size": 50, "epochs": 2, "batch_size": 32, "models": ["squeezenet1_1"], "seeds": 6}
RECORD = {*folders.FILES, folders.WEIGHTS, folders.SOURCE}
SAME = ("run.json", "metrics.json", "history.csv", "predictions.npz", folders.WEIGHTS)
"""The files of a record that are the same, however often the run was interrupted."""

FULL = "OSError: [Errno 28] No space left on device"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A home in which two runs have ended undisturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LWNB_HOME", str(home := tmp_path_factory.mktemp("whole")))
        runs = studies.architectures(grid.pin(check(TINY)))
        sets.load(Source(dataset="digits"))
        assert {status for status, _ in Child(batch, runs[:2], home=home).end()[1]} <= {"done", "did not learn"}
        yield home, runs


@pytest.fixture
def fresh(whole, tmp_path, monkeypatch):
    """A function that empties the home: no run but the second one, which has ended, and the images at hand."""

    def empty(home=tmp_path / "home"):
        shutil.rmtree(home / "runs", ignore_errors=True)
        other = folders.folder(whole[1][1]).relative_to(results.home())
        for kept in (other, "runs/images"):
            shutil.copytree(whole[0] / kept, home / kept)
        if not (home / "data").exists():
            (home / "data").symlink_to(whole[0] / "data")
        return home

    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "home"))
    return empty


def contents(home, run, names=SAME):
    folder = home / folders.folder(run).relative_to(results.home())
    return {name: (folder / name).read_bytes() for name in names}


def sound(whole, home):
    """Every record that is listed is whole and right, and the run that had ended is as it was."""
    for record in results.every():
        assert {file.name for file in record.folder.iterdir()} in (RECORD, set(folders.FILES))
        assert record.metrics["epochs_run"] == len(record.history) and len(record.predictions["labels"]) == 50
        names = [name for name in SAME if (record.folder / name).exists()]
        assert {name: (record.folder / name).read_bytes() for name in names} == contents(whole[0], record.run, names)
    assert contents(home, whole[1][1], RECORD) == contents(whole[0], whole[1][1], RECORD)


def ends_the_same(whole, home, run=None):
    """The run, asked for again, goes on from where it was, ends as if nothing had happened,
    and leaves nothing behind."""
    run = run or whole[1][0]
    left = left_to_write(run)
    steps, ((status, reason),) = Child(batch, [run], home=home).end()
    assert status in ("done", "did not learn"), reason
    assert steps.count("write") == left
    assert contents(home, run) == contents(whole[0], run)
    assert {file.name for file in folders.folder(run).iterdir()} == RECORD and not folders.part(run).exists()
    assert {record.run.key for record in results.every()} == {run.key, whole[1][1].key}
    sound(whole, home)


def left_to_write(run) -> int:
    """How many files: the setting, a checkpoint an epoch, and the record; none,
    where the record has all its files but not its name."""
    part = folders.part(run)
    if results.find(run) or (part / "metrics.json").exists():
        return 0
    begun = (part / "setting.json").exists()
    return (not begun) + run.epochs - epochs(part / "checkpoint.ckpt") + len(RECORD)


def epochs(checkpoint) -> int:
    return torch.load(checkpoint, weights_only=True)["epoch"] + 1 if checkpoint.exists() else 0


def synced(steps) -> bool:
    """Whether each rename comes after a sync of what was written, and is synced itself."""
    renames = [at for at, kind in enumerate(steps) if kind == "os.rename"]
    written = [max(at for at in range(rename) if steps[at] == "write") for rename in renames]
    return all("fsync" in steps[a:b] and steps[b + 1] == "fsync" for a, b in zip(written, renames, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_before_any_of_its_steps_ends_the_same(whole, fresh):
    run = whole[1][0]
    steps, _ = Child(batch, [run], home=fresh()).end()
    kinds = {"open", "write", "fsync", "os.rename", "os.remove", "os.mkdir", "shutil.rmtree"}
    assert set(steps) == kinds and steps.count("write") == 3 + len(RECORD) and synced(steps)
    reached = Counter()
    for die in range(1, len(steps) + 1):
        home = fresh()
        assert Child(batch, [run], home=home, die=die).end() is None
        sound(whole, home)
        reached[results.status(run)] += 1
        ends_the_same(whole, home)
    print(f"{len(steps)} steps: {dict(reached)}")
    assert {"missing", "interrupted"} < set(reached)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_at_a_hundred_random_moments_ends_the_same(whole, fresh):
    """A third of the killed ones go on undisturbed, the others are killed again on their way."""
    (run, *_), draw, phases, ended = studies.architectures(check(TINY | {"epochs": 8})), random.Random(0), Counter(), 0
    Child(batch, [run], home=whole[0]).end()
    began, home = time.perf_counter(), fresh()
    ends_the_same(whole, home, run)
    usual, home = time.perf_counter() - began, fresh()
    while phases.total() < 100:
        child = Child(batch, [run], home=home)
        child.process.join(draw.uniform(0, usual))
        child.process.kill()
        child.process.join()
        sound(whole, home)
        phases.update([phase(run)] if child.process.exitcode else [])
        if child.process.exitcode == 0 or draw.random() < 1 / 3:
            ends_the_same(whole, home, run)
            home, ended = fresh(), ended + 1
    print(f"killed {dict(phases)}; {ended} runs ended, all the same; {usual:.2f} s undisturbed")
    assert {"before the first checkpoint", "in or between epochs", "after the last epoch"} <= set(phases)


def phase(run) -> str:
    part = folders.part(run)
    if results.find(run):
        return "after the record"
    if part.exists() and any(file.name.startswith("run.json") for file in part.iterdir()):
        return "while saving"
    names = {0: "before the first checkpoint", run.epochs: "after the last epoch"}
    return names.get(epochs(part / "checkpoint.ckpt"), "in or between epochs")


@pytest.mark.slow
def test_a_record_that_is_replaced_is_whole_at_every_step(whole, fresh):
    """As for a source whose record was published without its weights, and that is trained again for them."""
    run = whole[1][0]
    files = contents(whole[0], run, RECORD)
    steps, _ = Child(store, run, files, home=fresh()).end()
    for die in range(1, len(steps) + 4):  # four more: what stood there is removed first
        home = fresh()
        Child(store, run, {name: files[name] for name in folders.FILES}, home=home).end()
        Child(store, run, files, home=home, die=die).end()
        sound(whole, home)
        Child(store, run, files, home=home).end()
        assert contents(home, run, RECORD) == files and not folders.part(run).exists()


@pytest.mark.slow
def test_what_is_published_is_whole_at_every_step(whole, fresh):
    home = fresh()
    steps, copied = Child(publish, home=home).end()
    assert copied == 1 and steps.count("write") == len(folders.FILES) and synced(steps)
    for die in range(1, len(steps) + 1):
        shutil.rmtree(home / "results")
        assert Child(publish, home=home, die=die).end() is None
        sound(whole, home)
        Child(publish, home=home).end()
        (folder,) = (home / "results").glob("*/*/*")
        assert {file.name for file in folder.iterdir()} == set(folders.FILES)
        sound(whole, home)


@pytest.mark.slow
def test_the_cached_images_are_whole_at_every_step(tmp_path):
    (first := tmp_path / "0").mkdir()
    steps, digest = Child(load, home=first).end()
    assert (
        digest == grid.pin(check({})).digest and steps.count("write") == 3 and synced(steps)
    )  # cache, seal, what is known
    for die in range(1, len(steps) + 1):
        (home := tmp_path / str(die)).mkdir()
        assert Child(load, home=home, die=die).end() is None
        assert Child(load, home=home).end()[1] == digest
        assert sorted(file.suffix for file in (home / "data/cache").iterdir()) == [".json", ".lock", ".safetensors"]
        assert (home / "runs/images" / f"{digest}.json").read_bytes() == (
            first / "runs/images" / f"{digest}.json"
        ).read_bytes()


@pytest.fixture(params=["tmpfs", "injected"])
def disk(request, tmp_path, fresh):
    """A home on a disk that takes so many bytes more, and then as many as it likes: `fill(room)`, `free()`."""
    home = tmp_path / "home"
    if request.param == "injected":  # see Child: the children are told
        yield fresh(), True, lambda room: None, lambda: None
        return
    home.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "none", home], check=False, capture_output=True
    ).returncode:
        pytest.skip("no tmpfs may be mounted here")

    def fill(room):
        with open(home / "filler", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(home).free - room))

    try:
        yield fresh(), False, fill, (home / "filler").unlink
    finally:
        subprocess.run(["umount", "-l", home], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("mib", [0, 1, 14, 20])
def test_a_full_disk_is_told_and_costs_nothing_that_was_there(whole, disk, mib):
    """Nothing fits; no checkpoint; one of 9 MiB, but not the second beside it; two, but not all of two runs."""
    home, injected, fill, free = disk
    runs = [whole[1][0], whole[1][2]]
    fill(mib * 2**20)
    ended = Child(batch, runs, home=home, room=mib * 2**20 if injected else None).end()[1]
    assert ended[1] == ("failed", FULL) and (ended[0] == ended[1] or mib == 20)
    sound(whole, home)
    kept = [(folders.part(run) / "failure.json").exists() for run in runs]
    assert kept == [one[1] == FULL and mib > 0 and not injected for one in ended], (
        "where there is no room for the reason, it comes back all the same"
    )
    free()
    ends_the_same(whole, home)


@pytest.mark.slow
def test_two_batches_at_once_train_every_run_once(whole, fresh):
    home = fresh()
    runs = [*whole[1][2:], whole[1][0]]
    children = [Child(batch, order, counted, home=home) for order in (runs, runs)]
    for child in children:
        assert {status for status, _ in child.end()[1]} <= {"done", "did not learn"}
    assert sorted((home / "trainings").read_text().split()) == sorted(run.key for run in runs)
    assert {file.name for record in results.every() for file in record.folder.iterdir()} == RECORD
