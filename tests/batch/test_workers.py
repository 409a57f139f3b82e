import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from lwnb.base.errors import ParamsError
from lwnb.batch import grid, workers
from lwnb.plan import studies
from lwnb.plan.params import check
from lwnb.records import failures, results, tables


def numbers(run):
    record = results.find(run)
    return [(record.folder / name).read_bytes() for name in ("metrics.json", "history.csv", "predictions.npz")]


@contextmanager
def process(*command, **environment):
    child = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        env=os.environ | {name: str(value) for name, value in environment.items()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def cluster(tmp_path):
    """A scheduler as a process of its own; call it to start a worker, with a home of its own."""
    file = tmp_path / "scheduler.json"
    quiet = ("--no-dashboard", "--host", "127.0.0.1")
    with ExitStack() as stack:
        scheduler = stack.enter_context(process("dask", "scheduler", "--scheduler-file", file, "--port", 0, *quiet))
        while not (file.exists() and file.read_text().rstrip().endswith("}")):  # it is there before it is written
            time.sleep(0.05)
        address = f"tcp://127.0.0.1:{json.loads(file.read_text())['address'].rsplit(':', 1)[1]}"

        def worker(name, *options, threads=1):
            options = ("--nthreads", threads, "--no-nanny", "--name", name, *quiet, *options)
            home = {"LWNB_HOME": tmp_path / name, "OMP_NUM_THREADS": 1}
            return stack.enter_context(process("dask", "worker", address, *options, **home))

        worker.address, worker.scheduler = address, scheduler
        yield worker


def runs():
    """Five runs, of which two start from another one's weights."""
    tiny = {"train_size": 120, "test_size": 100, "epochs": 3, "batch_size": 32, "models": ["shufflenet_v2_x1_0"]}
    tiny |= {
        "source_train_size": 120,
        "source_epochs": 3,
        "transfer_lrs": [1.0e-3],
        "transfer_sizes": [100],
        "seeds": 2,
    }
    tiny |= {"transfer_model": "squeezenet1_1"}
    p = check(tiny)
    return studies.distinct([*studies.architectures(p), *studies.transfer(p)[:4]])


@pytest.mark.slow
def test_a_killed_worker_loses_no_run_and_every_record_is_what_one_process_computes(
    cluster, house, tmp_path, monkeypatch
):
    asked = runs()
    first, second = cluster("first"), cluster("second")
    killed = []

    def kill(row):  # as soon as the first worker's run has ended an epoch
        if not killed and list((tmp_path / "first" / "runs").glob("*/*/*.part/checkpoint.ckpt")):
            first.kill()
            killed.append(row["key"])

    listen = workers.listen
    monkeypatch.setattr(workers, "listen", lambda client, hear: listen(client, lambda row: (hear(row), kill(row))))
    table = grid.ensure(asked, scheduler=cluster.address)
    assert killed and first.wait() == -signal.SIGKILL and second.poll() is None
    assert set(table["status"]) <= {"done", "did not learn"} and len(table) == len(asked)
    assert len(results.every()) == len(asked) and all(record.weights for record in results.every())
    assert not list((house / "runs").glob("*/*/*.part")) and len(tables.origins(asked)) == 1
    far = [numbers(run) for run in asked]
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "alone"))
    grid.ensure(asked, workers=1)
    assert far == [numbers(run) for run in asked]


@pytest.mark.slow
def test_a_worker_that_takes_two_tasks_at_once_is_refused_and_one_that_fails_tells_why(cluster, house):
    wide = cluster("wide", threads=2)
    with pytest.raises(ParamsError, match="takes 2 tasks at once.*--nthreads 1"):
        grid.ensure(runs()[:1], scheduler=cluster.address)
    wide.kill()
    wide.wait()
    cluster("narrow")
    lost = runs()[0].model_copy(update={"weights": "0123456789ab"})
    table = grid.ensure([lost], scheduler=cluster.address)
    assert table["status"].tolist() == ["failed"] and "0123456789ab has no weights" in table["reason"][0]
    assert "Traceback" in failures.failure(lost)["traceback"]


@pytest.mark.slow
@pytest.mark.parametrize("given_up", [False, True], ids=["at once", "after the client has given up"])
def test_a_scheduler_that_dies_is_named(cluster, given_up):
    cluster("only")
    with pytest.raises(ParamsError, match="the connection was lost"), workers.connect(0, cluster.address) as client:
        tasks = [workers.Task(f"task-{n}", None, lambda: (0.2,)) for n in range(50)]
        for count, _ in enumerate(workers.spread(tasks, where, client)):
            if count == 1:
                cluster.scheduler.kill()
                while given_up and client.status != "closed":
                    time.sleep(0.05)


@pytest.mark.slow
def test_an_error_of_another_kind_is_not_called_a_lost_connection(cluster):
    with pytest.raises(KeyError, match="mine"), workers.connect(0, cluster.address):
        raise KeyError("mine")


@pytest.mark.slow
def test_tasks_ask_for_a_gpu_where_workers_announce_one_and_go_one_at_a_time_on_each(cluster):
    cluster("plain"), cluster("graphics", "--resources", "GPU=1")
    with workers.connect(0, cluster.address) as client:
        while len(client.scheduler_info()["workers"]) < 2:
            time.sleep(0.05)
        tasks = [workers.Task(f"task-{n}", None, lambda: (0.2,)) for n in range(4)]
        assert dict(workers.spread(tasks, where, client)) == {task.key: "graphics" for task in tasks}


def where(seconds):
    import time

    from distributed import get_worker

    time.sleep(seconds)
    return get_worker().name


where.__module__ = "__main__"  # sent whole: the workers do not have this file


def test_a_task_waits_for_the_one_it_names_and_the_first_goes_first():
    with workers.connect(1) as client:
        log = []
        tasks = [workers.Task(name, after, lambda n=name: (log.append(n) or n,)) for name, after in ORDER]
        ended = list(workers.spread(tasks, len, client))
    assert log == ["source", "child", "long"] and [key for key, _ in ended] == log
    assert dict(ended)["child"] == 5


ORDER = [("child", "source"), ("source", "elsewhere"), ("long", None)]


@pytest.mark.slow
def test_an_address_where_nobody_answers_is_named(house):
    with pytest.raises(ParamsError, match="tcp://127.0.0.1:9: no scheduler answers"):
        grid.ensure(runs()[:1], scheduler="tcp://127.0.0.1:9")


def test_another_version_of_the_package_is_refused():
    with pytest.raises(ParamsError, match=r"tcp://far has lwnb \('0.0.1', 1\).*install the same"):
        workers._admit("tcp://far", 1, ("0.0.1", 1))


@pytest.mark.parametrize(("value", "found"), [("", None), ("3", 3)])
def test_a_notebook_takes_the_workers_from_the_environment(monkeypatch, value, found):
    monkeypatch.setenv("LWNB_WORKERS", value)
    assert workers.default() == (found, None)
    monkeypatch.setenv("LWNB_WORKERS", "many")
    with pytest.raises(ParamsError, match="'many'"):
        workers.default()


@pytest.mark.slow
def test_workers_end_with_the_process_that_was_killed(house):
    change = ["-p", "epochs=200", "-p", "train_size=120", "-p", "models=[squeezenet1_1,shufflenet_v2_x1_0]"]
    command = [sys.executable, "-c", "from lwnb.cli import main; main()", "run", "-s", "01_architectures", *change]
    main = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.DEVNULL)
    while len(list((house / "runs").glob("*/*/*.part/checkpoint.ckpt"))) < 2:
        assert main.poll() is None
        time.sleep(0.1)
    children = psutil.Process(main.pid).children(recursive=True)
    main.kill()
    main.wait()
    assert len(children) >= 2 and psutil.wait_procs(children, timeout=30)[1] == []
