"""Data sets: identity whatever the copy, the cache, pools."""

import hashlib
import io
import os
import random
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from trees import by_class, cifar10, cifar10_files, encoded, folder, picture, tar, zipped

from lwnb.base.errors import DataError
from lwnb.data import archives, readers, sets
from lwnb.plan import paramfiles, run
from lwnb.plan.run import Source

pytestmark = pytest.mark.usefixtures("house")


def source(place, **values) -> Source:
    return Source(**{"dataset": "folder", "data_root": str(place)} | values)


def same(a: sets.Split, b: sets.Split) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("images", "labels", "ids"))


def identities(split: sets.Split) -> set[bytes]:
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
    first, *others = (sets.load(source(copy), 8) for copy in copies)
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
    digests = {sets.load(source(folder(house / str(n), tree)), 8).digest for n, tree in enumerate(variants)}
    assert len(digests) == len(variants)
    assert sets.load(source(house / "0"), 16).digest in digests, "the size of decoding is no part of it"


def test_the_names_of_classes_belong_to_the_digest(house):
    tree = cifar10_files(cifar10(train=2, test=1))
    vans = {path.replace("truck", "van"): content for path, content in tree.items()}  # the last one under both names
    first, second = (
        sets.load(source(folder(house / str(n), t), dataset="cifar10")) for n, t in enumerate((tree, vans))
    )
    assert same(first.train, second.train)
    assert first.digest != second.digest


def test_splits_are_sorted_by_label_then_identity():
    digits = sets.load(Source(dataset="digits"))
    for split in (digits.train, digits.test):
        keys = [(label, row.numpy().tobytes()) for label, row in zip(split.labels.tolist(), split.ids, strict=True)]
        assert keys == sorted(keys)
        assert (split.images.dtype, split.labels.dtype, split.ids.dtype) == (torch.uint8, torch.int64, torch.uint8)


def test_the_pinned_digest_of_digits_holds():
    assert sets.load(Source(dataset="digits")).digest == paramfiles.read(paramfiles.file_of("digits")).digest


def test_another_digest_is_refused_and_both_are_named():
    with pytest.raises(DataError, match="1,438 for training, 359 for testing") as caught:
        sets.load(Source(dataset="digits", digest="0" * 64))
    assert "0" * 64 in str(caught.value)
    assert paramfiles.read(paramfiles.file_of("digits")).digest in str(caught.value)


# --- Pools ---


def test_the_pool_of_a_whole_set_is_a_sample_of_smallest_hashes(house):
    """Who has the whole CIFAR-10 and who has the sample get the same digest,
    as the sample was drawn by the pool's rule."""
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
    cut = sets.load(source(places["a"], dataset="cifar10", pool_train=60, pool_test=30))
    for pool in (0, 30):
        small = sets.load(source(places["b"], dataset="cifar10", pool_test=pool))
        assert small.digest == cut.digest
        assert same(small.test, cut.test)
        assert same(small.train, cut.train)


def test_a_pool_as_large_as_the_set_is_the_set():
    whole, again = (sets.load(Source(dataset="digits", pool_train=a, pool_test=b)) for a, b in ((0, 0), (1438, 359)))
    smaller = sets.load(Source(dataset="digits", pool_train=1437, pool_test=359))
    assert whole.digest == again.digest != smaller.digest
    assert len(smaller.train.labels) == 1437


# --- Copies, where a folder is split here ---

COPIES = ("{} (1)", "{}(2)", "{} copy", "{} copy 3", "{} - Copy", "{} - Copy (2)", "{}_copy2", "Copy of {}")


def jpeg(content: bytes) -> bytes:
    """The same picture, compressed again: other bytes, other pixels, nearly the same to look at."""
    with Image.open(io.BytesIO(content)) as image:
        return encoded(image.convert("RGB"), "JPEG", quality=95, subsampling=0)


def parted(found: sets.Dataset, one: str, other: str) -> bool:
    """Whether one of two files stands in training, the other in the test split."""
    sides = [np.frombuffer(hashlib.sha256(path.encode()).digest(), np.uint8) for path in (one, other)]
    inside = [bool((found.test.ids.numpy() == identity).all(1).any()) for identity in sides]
    return inside[0] != inside[1]


def test_identical_pixels_stay_on_one_side_whatever_their_names(house):
    tree = by_class("", each=30)
    twins = {path: path.replace("/", "/z") for path in tree if path.startswith("cat")}
    found = sets.load(source(folder(house / "pictures", tree | {twins[path]: tree[path] for path in twins})), 8)
    assert sets.overlap(found.test, found.train) == 0
    assert not any(parted(found, one, other) for one, other in twins.items())
    assert torch.bincount(found.test.labels).tolist() == [12, 6], "a fifth of each class, as without copies"


@pytest.mark.parametrize("form", COPIES)
def test_a_file_that_is_named_and_looks_like_a_copy_stays_with_its_original(house, form):
    tree = {f"{name}/p.{n}.png": picture(n + 50 * (name == "dog")) for name in ("cat", "dog") for n in range(25)}
    twins = {path: f"{path[:3]}/{form.format(path[4:-4])}.jpg" for path in tree}
    found = sets.load(source(folder(house / "pictures", tree | {twins[p]: jpeg(tree[p]) for p in tree})), 8)
    assert sets.overlap(found.test, found.train) == 0
    assert len(found.test.labels) == 20
    assert not any(parted(found, one, other) for one, other in twins.items())


def test_other_pictures_under_the_names_of_copies_are_no_copies(house):
    """As a browser names what it downloads: every picture of a class may be called so."""
    tree = {
        f"{name}/images{f' ({n})' * bool(n)}.png": picture(n + 50 * (name == "dog"))
        for name in ("cat", "dog")
        for n in range(25)
    }
    assert len(sets.load(source(folder(house / "pictures", tree)), 8).test.labels) == 10


def test_a_class_of_one_picture_many_times_is_refused_by_name(house):
    tree = by_class("", each=9) | {f"owl/{n}.png": picture(99) for n in range(9)}
    with pytest.raises(DataError, match=r"owl \(1\)"):
        sets.load(source(folder(house / "pictures", tree)), 8)


def test_copies_stay_on_one_side_of_the_validation_split_too(house):
    tree = by_class("train/", "test/", each=30)
    tree |= {path.replace("/cat/", "/cat/z"): content for path, content in tree.items()}
    where = source(folder(house / "pictures", tree))
    found = sets.load(where, 8)
    fields = {"model": "resnet18", "optimizer": "sgd", "lr": 0.1, "weight_decay": 0.0, "schedule": "cosine"}
    fields |= {"image_size": 8, "batch_size": 8, "epochs": 1, "val_share": 0.3}
    task = sets.task(run.Run(dataset="folder", digest=found.digest, source=where, **fields))
    assert len(task.val.labels) == 27
    assert sets.overlap(task.val, task.train) == 0


# --- Cache ---


@pytest.fixture
def decoded(monkeypatch):
    """How often a data set was decoded."""
    calls, read = [], readers.contents
    monkeypatch.setattr(readers, "contents", lambda *args: calls.append(args) or read(*args))
    return calls


def cached(house):
    return sorted((house / "data" / "cache").glob("folder-*.safetensors"), key=os.path.getmtime)


def test_decoded_once(house, decoded):
    place = folder(house / "pictures", by_class(""))
    first, second = sets.load(source(place), 8), sets.load(source(place, pool_train=6), 8)
    assert (len(decoded), len(cached(house))) == (1, 1)
    assert identities(second.train) < identities(first.train)
    assert stat.S_IMODE(cached(house)[0].stat().st_mode) == 0o644
    sets.load(source(place), 16)
    sets.load(source(place, bad_images="skip"), 8)
    assert len(decoded) == 3, "another size, or another way with bad files, is another content"


def test_who_asks_at_the_same_time_waits(house, decoded):
    place = folder(house / "pictures", by_class("", each=50))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: sets.load(source(place), 8).digest, range(4)))
    assert len(set(found)) == len(decoded) == 1


def test_a_changed_file_is_seen(house, decoded):
    place = folder(house / "pictures", by_class(""))
    before = sets.load(source(place), 8).digest
    folder(place, {"cat/0.png": picture(4321)})
    assert sets.load(source(place), 8).digest != before
    assert len(decoded) == 2


def twin(content: bytes) -> bytes:
    """Another picture, in a file of the same size."""
    return next(c for c in map(picture, range(1000, 2000)) if len(c) == len(content) and c != content)


def keep_times(path, content: bytes) -> None:
    """Another content under the old size and time of change, as a program that restores times would write it."""
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("how", ["cp -p", "mv", "written over", "archive"])
def test_a_file_that_was_swapped_for_one_of_its_size_and_time_is_seen(house, decoded, how):
    tree = by_class("")
    other = tree | {"cat/0.png": twin(tree["cat/0.png"])}
    place = tar(house / "set.tar", tree) if how == "archive" else folder(house / "pictures", tree)
    path = place if how == "archive" else place / "cat/0.png"
    before, new = sets.load(source(place), 8).digest, house / "new"
    content = tar(new, other).read_bytes() if how == "archive" else other["cat/0.png"]
    new.write_bytes(content)
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    if how == "cp -p":
        shutil.copy2(new, path)
    elif how == "written over":
        keep_times(path, content)
    else:
        new.replace(path)
    assert sets.load(source(place), 8).digest != before
    assert len(decoded) == 2
    assert sets.load(source(place), 8).digest != before
    assert (len(decoded), len(cached(house))) == (2, 1), "the old one is no use to anybody"


def test_what_changed_in_name_only_is_not_decoded_again(house, decoded):
    place = folder(house / "pictures", by_class(""))
    before = sets.load(source(place), 8).digest
    (place / "cat/0.png").chmod(0o600)
    assert sets.load(source(place), 8).digest == before
    shutil.move(place, house / "old")
    shutil.copytree(house / "old", place, copy_function=shutil.copyfile)
    assert sets.load(source(place), 8).digest == before
    cached(house)[0].chmod(0o600)
    assert sets.load(source(place), 8).digest == before
    assert len(decoded) == 1


def test_a_cache_that_was_written_over_is_made_anew(house, decoded):
    place = folder(house / "pictures", by_class(""))
    sets.load(source(place), 8)
    (file,) = cached(house)
    content = file.read_bytes()
    keep_times(file, content[:-300] + bytes([content[-300] ^ 1]) + content[-299:])
    sets.load(source(place), 8)
    assert (len(decoded), file.read_bytes() == content) == (2, True)


@pytest.mark.parametrize(
    "seal", [None, "", "{", "[]", "{}", '{"images": {}, "cache": 1}', '{"images": {}, "cache": {}}']
)
def test_a_cache_without_a_sound_seal_is_made_anew(house, decoded, seal):
    place = folder(house / "pictures", by_class(""))
    before = sets.load(source(place), 8).digest
    file = cached(house)[0].with_suffix(".json")
    file.unlink() if seal is None else file.write_text(seal)
    assert sets.load(source(place), 8).digest == before
    assert sets.load(source(place), 8).digest == before
    assert len(decoded) == 2


def test_what_may_not_be_looked_at_is_no_fault_of_the_fingerprint(tmp_path):
    place = folder(tmp_path, by_class(""))
    seen = archives.fingerprint(place), archives.checksum(place)
    (place / "cat/gone.png").symlink_to("nowhere")
    (place / "cat/loop.png").symlink_to("loop.png")
    os.mkfifo(place / "cat/pipe.png")
    assert all(a != b for a, b in zip(seen, (archives.fingerprint(place), archives.checksum(place)), strict=True))


@pytest.mark.parametrize("left", [0, 5, 1000, -1])
def test_a_damaged_cache_is_made_anew(house, decoded, left):
    place = folder(house / "pictures", by_class(""))
    before = sets.load(source(place), 8)
    before = sets.Split(before.train.images.clone(), before.train.labels.clone(), before.train.ids.clone())
    (file,) = cached(house)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:left])
    assert same(sets.load(source(place), 8).train, before)
    assert len(decoded) == 2
    assert file.read_bytes() == content


def test_a_fault_while_reading_leaves_no_cache(house):
    place = folder(house / "pictures", by_class("") | {"cat/bad.png": b""})
    for _ in range(2):
        with pytest.raises(DataError, match="cat/bad.png"):
            sets.load(source(place), 8)
    assert cached(house) == []
    assert sets.load(source(place, bad_images="skip"), 8).skipped == ("cat/bad.png",)
    assert sets.load(source(place, bad_images="skip"), 8).skipped == ("cat/bad.png",), "from the cache, too"
