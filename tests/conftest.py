import os
import signal
from pathlib import Path

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests in the background ignores it
os.environ["OMP_NUM_THREADS"] = "1"  # for every process that a test starts; read when torch is imported
os.environ["LWNB_RESULTS"] = str(Path(__file__).with_name("no-records"))  # a test sees its own home's records alone

import planted
import pytest
import torch


@pytest.fixture
def house(tmp_path, monkeypatch):
    """An empty home: runs, results, data and build of the test's own."""
    monkeypatch.setenv("LWNB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def two(house):
    """The data set of two planted networks, see `planted.two`."""
    return planted.two()


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Beside a busy neighbour, two threads that wait for each other can be ten times slower than one."""
    torch.set_num_threads(1)
