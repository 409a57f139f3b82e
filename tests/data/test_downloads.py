"""Downloads over a loopback server that cuts the connection, sends wrong bytes, stalls, or does as it should."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from trees import cifar10, cifar10_batches, tar, tiny_imagenet, zipped

from lwnb.base.errors import DataError
from lwnb.data import archives, sets
from lwnb.plan import facts
from lwnb.plan.run import Source


class Server(ThreadingHTTPServer):
    """Serves one file, in the manner of `fault`."""

    daemon_threads = True
    content, fault = b"", "none"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        content, fault = self.server.content, self.server.fault
        if fault == "missing":
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if "Method" in self.headers:  # torchvision only asks whether the address has moved
            return None
        if fault == "wrong bytes":
            content = content[:-9] + b"corrupted"
        self.wfile.write(content if fault in ("none", "wrong bytes") else content[: len(content) // 2])
        if fault == "stalls":
            self.wfile.flush()
            time.sleep(60)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def tiny(house, server, monkeypatch):
    """A server that has Tiny ImageNet, and a home that has nothing."""
    archive = zipped(house / "served", tiny_imagenet(), "tiny-imagenet-200/")
    server.content = archive.read_bytes()
    archive.unlink()
    origin = (f"{server.address}/tiny-imagenet-200.zip", hashlib.md5(server.content).hexdigest())
    monkeypatch.setitem(facts.DATASETS, "tiny-imagenet", replace(facts.DATASETS["tiny-imagenet"], origin=origin))
    return server


@pytest.fixture
def cifar(house, server, monkeypatch):
    """A server that has CIFAR-10 in its published form, and a torchvision that knows the checksums of this one."""
    from torchvision.datasets import CIFAR10

    tree = cifar10_batches(cifar10(train=3, test=1))
    server.content = tar(house / "served.tar.gz", tree).read_bytes()
    (house / "served.tar.gz").unlink()
    md5 = {name.split("/")[1]: hashlib.md5(content).hexdigest() for name, content in tree.items()}
    origin = (f"{server.address}/cifar-10-python.tar.gz", hashlib.md5(server.content).hexdigest())
    monkeypatch.setitem(facts.DATASETS, "cifar10", replace(facts.DATASETS["cifar10"], origin=origin))
    monkeypatch.setattr(CIFAR10, "train_list", [(f"data_batch_{n}", md5[f"data_batch_{n}"]) for n in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [("test_batch", md5["test_batch"])])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    return server


def kept(home) -> set[str]:
    """What stands in `data/` beside the cache."""
    return {path.name for path in (home / "data").iterdir()} - {"cache"}


@pytest.mark.parametrize("fault", ["cut", "wrong bytes", "missing"])
@pytest.mark.parametrize("dataset", ["tiny-imagenet", "cifar10"])
def test_a_broken_download_leaves_nothing_and_a_second_try_succeeds(request, house, dataset, fault):
    server = request.getfixturevalue({"tiny-imagenet": "tiny", "cifar10": "cifar"}[dataset])
    source, server.fault = Source(dataset=dataset), fault
    with pytest.raises(DataError, match="nothing of it was kept"):
        sets.load(source)
    assert kept(house) == set()
    server.fault = "none"
    assert len(sets.load(source).train.labels) == {"tiny-imagenet": 9, "cifar10": 30}[dataset]
    (name,) = kept(house)
    assert (house / "data" / name).read_bytes() == server.content
    server.fault = "missing"
    assert archives.find(source).name == name, "once is enough"


def test_a_stalled_download_is_given_up(tiny, monkeypatch):
    monkeypatch.setattr(archives, "TIMEOUT", 0.5)
    tiny.fault = "stalls"
    with pytest.raises(DataError, match="timed out"):
        sets.load(Source(dataset="tiny-imagenet"))
    assert socket.getdefaulttimeout() is None


@pytest.mark.slow
def test_a_killed_download_is_not_taken_for_whole(house, tiny):
    tiny.fault = "stalls"
    code = (
        "import sys; from dataclasses import replace; from lwnb.data import archives; "
        "from lwnb.plan.facts import DATASETS; from lwnb.plan.run import Source; name = 'tiny-imagenet'; "
        "DATASETS[name] = replace(DATASETS[name], origin=sys.argv[1:]); archives.find(Source(dataset=name))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, *facts.DATASETS["tiny-imagenet"].origin], env=os.environ, stderr=-3
    )
    try:
        deadline = time.monotonic() + 60
        while not list(house.glob("data/*.zip.tmp*")) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    assert list(house.glob("data/*.zip.tmp*")), "killed too early to show anything"
    tiny.fault = "none"
    assert len(sets.load(Source(dataset="tiny-imagenet")).train.labels) == 9


@pytest.mark.parametrize("dataset", ["tiny-imagenet", "cifar10"])
def test_without_a_network_the_message_says_what_to_do(request, house, dataset):
    server = request.getfixturevalue({"tiny-imagenet": "tiny", "cifar10": "cifar"}[dataset])
    server.shutdown()
    server.server_close()  # nobody answers there any more
    with pytest.raises(DataError) as caught:
        sets.load(Source(dataset=dataset))
    said = str(caught.value)
    assert said.startswith(f"{dataset}: not found")
    assert "Connection refused" in said
    assert all(str(house / "data" / name) in said for name in facts.DATASETS[dataset].files)
    assert all(word in said for word in (server.address, "MD5", "data_root", "digits"))
    assert len(sets.load(Source(dataset="digits")).classes) == 10
