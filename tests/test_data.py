"""Data sets: identity whatever the copy, the cache, pools."""

import hashlib
import os
import random
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from trees import by_class, cifar10, cifar10_files, folder, picture, tar, zipped

from lwnb import data, params, readers
from lwnb.data import DataError
from lwnb.params import Source

pytestmark = pytest.mark.usefixtures("house")


def source(place, **values) -> Source:
    return Source(**{"dataset": "folder", "data_root": str(place)} | values)


def same(a: data.Split, b: data.Split) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("images", "labels", "ids"))


def identities(split: data.Split) -> set[bytes]:
    return {row.numpy().tobytes() for row in split.ids}


# --- Identity ---


def test_a_data_set_is_the_same_in_any_order_and_archive(house):
    tree = by_class("train/", "test/", each=9)
    mixed = dict(random.Random(1).sample(list(tree.items()), len(tree)))
    copies = [
        folder(house / "pictures", tree),
        tar(house / "mixed.tar", mixed, "top/"),
        zipped(house / "copy.zip", dict(reversed(tree.items()))),
    ]
    first, *others = (data.load(source(copy), 8) for copy in copies)
    for other in others:
        assert other.digest == first.digest
        assert same(first.train, other.train)
        assert same(first.test, other.test)


def test_every_change_of_content_changes_the_digest(house):
    tree = by_class("train/", "test/")
    moved = "train/cat/0.png"
    rest = {path: content for path, content in tree.items() if path != moved}
    variants = [
        tree,
        rest,
        rest | {moved: picture(12345)},
        rest | {"train/dog/00.png": tree[moved]},
        rest | {"test/cat/00.png": tree[moved]},
        {path.replace("dog", "hound"): content for path, content in tree.items()},
    ]
    digests = {data.load(source(folder(house / str(n), tree)), 8).digest for n, tree in enumerate(variants)}
    assert len(digests) == len(variants)
    assert data.load(source(house / "0"), 16).digest in digests, "the size of decoding is no part of it"


def test_the_names_of_classes_belong_to_the_digest(house):
    tree = cifar10_files(cifar10(train=2, test=1))
    vans = {path.replace("truck", "van"): content for path, content in tree.items()}  # the last one under both names
    first, second = (
        data.load(source(folder(house / str(n), t), dataset="cifar10")) for n, t in enumerate((tree, vans))
    )
    assert same(first.train, second.train)
    assert first.digest != second.digest


def test_splits_are_sorted_by_label_then_identity():
    digits = data.load(Source(dataset="digits"))
    for split in (digits.train, digits.test):
        keys = [(label, row.numpy().tobytes()) for label, row in zip(split.labels.tolist(), split.ids, strict=True)]
        assert keys == sorted(keys)
        assert (split.images.dtype, split.labels.dtype, split.ids.dtype) == (torch.uint8, torch.int64, torch.uint8)


def test_the_pinned_digest_of_digits_holds():
    assert data.load(Source(dataset="digits")).digest == params.read(params.file_of("digits")).digest


def test_another_digest_is_refused_and_both_are_named():
    with pytest.raises(DataError, match="1,438 for training, 359 for testing") as caught:
        data.load(Source(dataset="digits", digest="0" * 64))
    assert "0" * 64 in str(caught.value)
    assert params.check({}).digest in str(caught.value)


# --- Pools ---


def test_the_pool_of_a_whole_set_is_a_sample_of_smallest_hashes(house):
    """Who has the whole CIFAR-10 and who has the sample get the same digest, as the sample was drawn by the pool's rule."""
    whole = cifar10(train=6, test=8)
    sample = {}
    for name, (pixels, labels) in whole.items():
        each = 6 if name == "train" else 3
        smallest = []
        for label in range(10):
            of_class = np.flatnonzero(labels == label)
            smallest += sorted(of_class, key=lambda n: hashlib.sha256(pixels[n].tobytes()).digest())[:each]
        sample[name] = pixels[smallest], labels[smallest]
    places = {name: tar(house / f"{name}.tar", cifar10_files(images)) for name, images in (("a", whole), ("b", sample))}
    cut = data.load(source(places["a"], dataset="cifar10", pool_train=60, pool_test=30))
    for pool in (0, 30):
        small = data.load(source(places["b"], dataset="cifar10", pool_test=pool))
        assert small.digest == cut.digest
        assert same(small.test, cut.test)
        assert same(small.train, cut.train)


def test_a_pool_as_large_as_the_set_is_the_set():
    whole, again = (data.load(Source(dataset="digits", pool_train=a, pool_test=b)) for a, b in ((0, 0), (1438, 359)))
    smaller = data.load(Source(dataset="digits", pool_train=1437, pool_test=359))
    assert whole.digest == again.digest != smaller.digest
    assert len(smaller.train.labels) == 1437


# --- Cache ---


@pytest.fixture
def decoded(monkeypatch):
    """How often a data set was decoded."""
    calls, read = [], readers.read
    monkeypatch.setattr(readers, "read", lambda *args: calls.append(args) or read(*args))
    return calls


def cached(house):
    return sorted((house / "data" / "cache").glob("folder-*.safetensors"), key=os.path.getmtime)


def test_decoded_once(house, decoded):
    place = folder(house / "pictures", by_class(""))
    first, second = data.load(source(place), 8), data.load(source(place, pool_train=6), 8)
    assert (len(decoded), len(cached(house))) == (1, 1)
    assert identities(second.train) < identities(first.train)
    assert stat.S_IMODE(cached(house)[0].stat().st_mode) == 0o644
    data.load(source(place), 16)
    data.load(source(place, bad_images="skip"), 8)
    assert len(decoded) == 3, "another size, or another way with bad files, is another content"


def test_who_asks_at_the_same_time_waits(house, decoded):
    place = folder(house / "pictures", by_class("", each=50))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: data.load(source(place), 8).digest, range(4)))
    assert len(set(found)) == len(decoded) == 1


def test_a_changed_file_is_seen(house, decoded):
    place = folder(house / "pictures", by_class(""))
    before = data.load(source(place), 8).digest
    folder(place, {"cat/0.png": picture(4321)})
    assert data.load(source(place), 8).digest != before
    assert len(decoded) == 2


@pytest.mark.parametrize("left", [0, 5, 1000, -1])
def test_a_damaged_cache_is_made_anew(house, decoded, left):
    place = folder(house / "pictures", by_class(""))
    before = data.load(source(place), 8)
    before = data.Split(before.train.images.clone(), before.train.labels.clone(), before.train.ids.clone())
    (file,) = cached(house)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:left])
    assert same(data.load(source(place), 8).train, before)
    assert len(decoded) == 2
    assert file.read_bytes() == content


def test_a_fault_while_reading_leaves_no_cache(house):
    place = folder(house / "pictures", by_class("") | {"cat/bad.png": b""})
    for _ in range(2):
        with pytest.raises(DataError, match="cat/bad.png"):
            data.load(source(place), 8)
    assert cached(house) == []
    assert data.load(source(place, bad_images="skip"), 8).skipped == ("cat/bad.png",)
    assert data.load(source(place, bad_images="skip"), 8).skipped == ("cat/bad.png",), "from the cache, too"
