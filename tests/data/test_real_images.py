"""The real samples beside the checkout (`../shared/data`): CIFAR-10, and Tiny ImageNet as itself and as a folder."""

import hashlib
import io
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from trees import CIFAR10, folder, zipped

from lwnb.base import places
from lwnb.base.places import CHECKOUT
from lwnb.data import sets
from lwnb.plan import paramfiles
from lwnb.plan.run import Source

SAMPLES = CHECKOUT.parent / "shared" / "data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no sample of real images at {SAMPLES}"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LWNB_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def published(name: str, **values) -> sets.Dataset:
    """The sample under the pools and the digest that `params/` pins."""
    p = paramfiles.read(paramfiles.file_of(name))
    pools = {"pool_train": p.pool_train, "pool_test": p.pool_test, "digest": p.digest}
    return sets.load(Source(**{"dataset": name, "data_root": str(SAMPLES)} | pools | values))


@pytest.fixture(scope="module")
def cifar10(home):
    return published("cifar10")


@pytest.fixture(scope="module")
def tiny(home):
    return published("tiny-imagenet")


def test_cifar10_is_the_published_one(cifar10):
    assert cifar10.classes == CIFAR10
    assert cifar10.train.images.shape == (50_000, 3, 32, 32)
    assert torch.bincount(cifar10.train.labels).tolist() == [5000] * 10
    assert torch.bincount(cifar10.test.labels).tolist() == [200] * 10
    mean = cifar10.train.images.double().mean((0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5), "the channel means that everyone uses"


def test_cifar10_identities_are_the_hashes_of_pixels(cifar10):
    for index in (0, 777, 1999):
        pixels = cifar10.test.images[index].permute(1, 2, 0).contiguous().numpy()
        assert cifar10.test.ids[index].numpy().tobytes() == hashlib.sha256(pixels.tobytes()).digest()


def test_a_smaller_pool_has_the_smallest_hashes_of_each_class(cifar10):
    """The rule by which the sample was drawn from the whole test set, applied once more to the sample."""
    smaller = published("cifar10", pool_test=1000, digest="")
    for label in range(10):
        every, kept = (
            sorted(row.numpy().tobytes() for row in split.ids[split.labels == label])
            for split in (cifar10.test, smaller.test)
        )
        assert kept == every[:100]
    assert torch.equal(smaller.train.ids, cifar10.train.ids)


def test_a_second_load_takes_under_two_seconds(cifar10):
    code = (
        "import sys, time, torch; start = time.process_time()\n"
        "from lwnb.data import sets; from lwnb.plan.run import Source\n"
        "found = sets.load(Source(dataset='cifar10', data_root=sys.argv[1]))\n"
        "found.train.images.clone(); print(time.process_time() - start)"
    )
    command = [sys.executable, "-c", code, str(SAMPLES)]
    # processor time: what a busy neighbour or a cold disk does to the wall clock is not ours; a copy touches every page
    assert float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) < 2


def test_no_test_image_of_cifar10_is_trained_on(cifar10):
    assert sets.overlap(cifar10.test, cifar10.train) == 0


@pytest.mark.parametrize(("name", "across"), [("cifar10", 0), ("cifar100", 3), ("tiny-imagenet", 0)])
def test_the_published_record_is_what_is_counted_in_these_images(home, name, across):
    found = published(name)
    assert sets.overlap(found.test, found.train) == across
    file = f"images/{found.digest}.json"
    assert (places.home() / "runs" / file).read_bytes() == (CHECKOUT / "results" / file).read_bytes()


def stored(*paths: str) -> dict[str, bytes]:
    with tarfile.open(SAMPLES / "tiny-imagenet-200.tar") as archive:
        return {path: archive.extractfile(f"tiny-imagenet-200/{path}").read() for path in paths}


def test_tiny_imagenet(tiny):
    assert len(tiny.classes) == 200
    assert tiny.classes[:2] == ("goldfish", "European fire salamander")
    assert tiny.train.images.shape == (20_000, 3, 64, 64)
    assert torch.bincount(tiny.train.labels).tolist() == [100] * 200
    assert torch.bincount(tiny.test.labels).tolist() == [10] * 200
    grey = (tiny.train.images == tiny.train.images[:, :1]).all(3).all(2).all(1).double().mean()
    assert 0.005 < grey < 0.05, "some files are grey"


def test_tiny_imagenets_annotations_are_the_labels(tiny):
    """Wnids in alphabetical order give the labels, words.txt their names."""
    files = stored(
        "wnids.txt", "words.txt", "val/val_annotations.txt", "val/images/val_2.JPEG", "val/images/val_6.JPEG"
    )
    words = dict(line.split("\t") for line in files["words.txt"].decode().splitlines())
    annotated = dict(line.split("\t")[:2] for line in files["val/val_annotations.txt"].decode().splitlines())
    wnids = sorted(files["wnids.txt"].decode().split())
    for name in ("val_2.JPEG", "val_6.JPEG"):
        path = f"val/images/{name}"
        identity = torch.frombuffer(bytearray(hashlib.sha256(path.encode()).digest()), dtype=torch.uint8)
        (index,) = (tiny.test.ids == identity).all(1).nonzero().flatten().tolist()
        label = int(tiny.test.labels[index])
        assert wnids[label] == annotated[name]
        assert tiny.classes[label] == words[annotated[name]].split(",")[0]
        with Image.open(io.BytesIO(files[path])) as file:
            assert (np.asarray(file.convert("RGB")) == tiny.test.images[index].permute(1, 2, 0).numpy()).all()


def test_real_jpegs_as_a_folder(home, tmp_path):
    """Two classes of Tiny ImageNet as someone's own pictures, in a folder and in a zip."""
    with tarfile.open(SAMPLES / "tiny-imagenet-200.tar") as archive:
        parts = {m.name: m.name.split("/") for m in archive if m.name.endswith(".JPEG")}
        wanted = {
            n: f"{p[2]}/{p[4]}" for n, p in parts.items() if p[1] == "train" and p[2] in ("n01443537", "n02124075")
        }
        tree = {path: archive.extractfile(name).read() for name, path in wanted.items()}
    copies = [folder(tmp_path / "pictures", tree), zipped(tmp_path / "pictures.zip", tree, "pictures/")]
    first, second = (sets.load(Source(dataset="folder", data_root=str(copy)), 32) for copy in copies)
    assert first.digest == second.digest
    assert first.classes == ("n01443537", "n02124075")
    assert torch.bincount(first.train.labels).tolist() == [80, 80]
    assert torch.bincount(first.test.labels).tolist() == [20, 20]
    known = {hashlib.sha256(path.encode()).digest(): content for path, content in tree.items()}
    for index in (0, 39):
        with Image.open(io.BytesIO(known[first.test.ids[index].numpy().tobytes()])) as file:
            halved = np.asarray(file.convert("RGB")).reshape(32, 2, 32, 2, 3).mean((1, 3))
        apart = np.abs(first.test.images[index].permute(1, 2, 0).numpy() - halved).mean()
        assert apart < 8, "of the same picture as its 2 x 2 means"
