"""What a run sees: subsets, splits, ranges of classes; and the overlap of two splits."""

import random

import pytest
import torch
from torch.nn import functional as F
from trees import by_class, cifar10, cifar10_files, folder, tar, zipped

from lwnb.base.errors import DataError
from lwnb.data import sets, splits
from lwnb.plan import paramfiles
from lwnb.plan.run import Run, Source

pytestmark = pytest.mark.usefixtures("house")


def source(place, **values) -> Source:
    return Source(**{"dataset": "folder", "data_root": str(place)} | values)


def run(found=None, where=None, **values) -> Run:
    """A run on digits, or on what `load` found somewhere."""
    name, digest = (
        (found.name, found.digest) if found else ("digits", paramfiles.read(paramfiles.file_of("digits")).digest)
    )
    recipe = {"model": "resnet18", "optimizer": "sgd", "lr": 0.1, "weight_decay": 0.0, "schedule": "cosine"}
    size = {"image_size": 8, "batch_size": 8, "epochs": 1}
    return Run(**{"dataset": name, "digest": digest, "source": where} | recipe | size | values)


def identities(split: sets.Split) -> set[bytes]:
    return {row.numpy().tobytes() for row in split.ids}


# --- Tasks ---


def test_the_splits_are_the_same_from_any_copy(house):
    tree = by_class("train/", "test/", each=9)
    mixed = dict(random.Random(1).sample(list(tree.items()), len(tree)))
    copies = [
        folder(house / "pictures", tree),
        tar(house / "mixed.tar", mixed),
        zipped(house / "copy.zip", mixed, "top/"),
    ]
    found = sets.load(source(copies[0]), 8)
    first, *others = (sets.task(run(found, source(copy), train_size=10, test_size=4)) for copy in copies)
    for other in others:
        for part in ("train", "val", "test"):
            a, b = getattr(first, part), getattr(other, part)
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.labels, b.labels)


def test_sizes_count_as_documented():
    task = sets.task(run(train_size=200, test_size=100, val_share=0.15))
    assert [len(part.labels) for part in (task.train, task.val, task.test)] == [170, 30, 100]
    assert torch.bincount(task.val.labels).tolist() == [3] * 10
    whole = sets.task(run())
    assert [len(part.labels) for part in (whole.train, whole.val, whole.test)] == [1294, 144, 359]
    parts = [identities(part) for part in (whole.train, whole.val, whole.test)]
    assert len(set.union(*parts)) == 1797, "no image stands in two splits"


def test_subsets_nest_and_seeds_change_what_they_name():
    def seen(**values):
        task = sets.task(run(**values))
        return identities(task.train) | identities(task.val), identities(task.val), identities(task.test)

    small, large, other, resplit = (
        seen(train_size=size, test_size=50, **seeds)
        for size, seeds in ((100, {}), (400, {}), (100, {"subset_seed": 1}), (100, {"split_seed": 1}))
    )
    assert small[0] < large[0]
    assert small[0] != other[0]
    assert small[2] != other[2]
    assert (small[0], small[2]) == (resplit[0], resplit[2])
    assert small[1] != resplit[1]


def test_a_range_of_classes_is_relabelled():
    whole, task = sets.load(Source(dataset="digits")), sets.task(run(classes="5:8"))
    assert task.classes == ("5", "6", "7")
    assert task.test.labels.unique().tolist() == [0, 1, 2]
    inside = (whole.test.labels >= 5) & (whole.test.labels < 8)
    assert torch.equal(task.test.images, whole.test.images[inside])
    assert torch.equal(task.test.labels + 5, whole.test.labels[inside])
    assert len(sets.task(run(classes="5:8", train_size=60)).train.labels) == 54, "sizes count what the range leaves"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": "5:11"}, "classes: '5:11' is not possible: digits has 10 classes"),
        ({"classes": "3:4"}, "at least 2"),
        ({"train_size": 5}, "train_size: 5 leaves no training image of"),
        ({"digest": "f" * 64}, "expected is ffff"),
    ],
)
def test_impossible_tasks(values, message):
    with pytest.raises(DataError, match=message):
        sets.task(run(**values))


def test_a_task_tells_which_files_were_left_out(house):
    place = folder(house / "pictures", by_class("", each=10) | {"cat/bad.png": b""})
    where = source(place, bad_images="skip")
    assert sets.task(run(sets.load(where, 8), where)).skipped == ("cat/bad.png",)


def test_the_splits_of_published_data_sets_stay_as_they_are_whatever_copies_they_hold(house):
    images = cifar10(train=8, test=1)
    images["train"][0][40:] = images["train"][0][:40]  # each of four pictures a class twice
    where = source(folder(house / "cifar10", cifar10_files(images)), dataset="cifar10")
    found = sets.load(where)
    task = sets.task(run(found, where, image_size=32, val_share=0.375))
    held = splits.hold_out(found.train.labels.numpy(), found.train.ids.numpy(), 0.375, "val:0:")
    assert torch.equal(task.val.images, found.train.images[torch.from_numpy(held)])


# --- Overlap ---


def test_overlap_counts_equal_pixels_whatever_their_labels():
    images = torch.randint(0, 256, (9, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels, ids = torch.arange(9), torch.zeros(9, 32, dtype=torch.uint8)
    a, b = sets.Split(images[:5], labels[:5], ids[:5]), sets.Split(images[[7, 3, 3, 8]], labels[:4], ids[:4])
    assert (sets.overlap(a, b), sets.overlap(b, a)) == (1, 2)
    flipped = sets.Split(images[:5].flip(-1), labels[:5], ids[:5])
    assert (sets.overlap(a, flipped), sets.overlap(a, a)) == (0, 5)


def test_near_duplicates_are_found_mirrored_brighter_and_noisy_and_others_are_not():
    draw = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(40, 3, 8, 8, generator=draw), 32, mode="bicubic").clamp(0, 1)
    other = F.interpolate(torch.rand(10, 3, 8, 8, generator=draw), 64, mode="bicubic").clamp(0, 1)
    noise = 0.03 * torch.randn(smooth[:3].shape, generator=draw)
    changed = torch.cat([smooth[:3].flip(-1), 0.6 * smooth[3:6] + 0.3, (smooth[6:9] + noise).clamp(0, 1)])
    wide = F.interpolate(torch.cat([changed, smooth[9:12]]), 64)

    def stored(images):
        return (255 * images).to(torch.uint8)

    assert sets.near(stored(torch.cat([wide, other])), stored(smooth)).tolist() == [True] * 12 + [False] * 10
    plain = stored(torch.ones(2, 3, 32, 32))
    assert not sets.near(plain, plain).any()  # a plain image is like no other
