"""Splits by hash, against a plain reference, cases worked by hand, and invariance to the order of images."""

import hashlib

import numpy as np
import pytest

from lwnb.data import splits


def invented(*counts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled labels with these counts, and random identities."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.repeat(np.arange(len(counts)), counts))
    return labels, draw.integers(0, 256, (len(labels), 32), np.uint8)


def chosen(ids: np.ndarray, which: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in ids[which]}


@pytest.mark.parametrize("salt", ["", "val:3:"])
def test_order_is_that_of_sorted_bytes(salt):
    labels, ids = invented(40, 3, 60)
    ids[:20, :31] = 7  # many that differ in the last byte alone
    ids[5:9, 20:] = 0  # and some that end in zeros

    def key(index):
        identity = ids[index].tobytes()
        hashed = hashlib.sha256((salt + identity.hex()).encode()).digest() if salt else identity
        return labels[index], hashed

    assert [key(i) for i in splits.order(labels, ids, salt)] == sorted(key(i) for i in range(len(labels)))


def test_a_subset_worked_by_hand():
    """A class of four has ranks 1/8, 3/8, 5/8, 7/8; one of two 1/4, 3/4. So the classes come as 0 1 0 0 1 0."""
    labels = np.array([0, 0, 0, 0, 1, 1])
    ids = np.zeros((6, 32), np.uint8)
    ids[:, 0] = [40, 10, 30, 20, 6, 5]
    by_size = [splits.subset(labels, ids, size).tolist() for size in range(1, 7)]
    assert by_size == [[1], [1, 5], [1, 3, 5], [1, 2, 3, 5], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    assert splits.subset(labels, ids, 0).tolist() == splits.subset(labels, ids, 99).tolist() == list(range(6))


@pytest.mark.parametrize("seed", [0, 5])
def test_subsets_nest_and_keep_the_share_of_every_class(seed):
    labels, ids = invented(50, 31, 7, 1)
    smaller = set()
    for size in range(1, len(labels)):
        which = splits.subset(labels, ids, size, seed)
        assert len(which) == size
        assert smaller < chosen(ids, which)
        smaller = chosen(ids, which)
        shares = np.bincount(labels) * size / len(labels)
        assert np.abs(np.bincount(labels[which], minlength=4) - shares).max() <= 1


def test_seed_0_takes_the_smallest_identities_and_other_seeds_others():
    labels, ids = invented(100)
    smallest = set(sorted(row.tobytes() for row in ids)[:30])
    assert chosen(ids, splits.subset(labels, ids, 30)) == smallest
    others = [chosen(ids, splits.subset(labels, ids, 30, seed)) for seed in (1, 2)]
    assert len({frozenset(smallest), *map(frozenset, others)}) == 3


def test_the_order_of_images_never_matters():
    labels, ids = invented(30, 20, 5)
    mixed = np.random.default_rng(1).permutation(len(labels))
    for size in (3, 17, 40):
        assert chosen(ids, splits.subset(labels, ids, size, 4)) == chosen(
            ids[mixed], splits.subset(labels[mixed], ids[mixed], size, 4)
        )
    mask, again = splits.hold_out(labels, ids, 0.3, "a"), splits.hold_out(labels[mixed], ids[mixed], 0.3, "a")
    assert (mask[mixed] == again).all()


@pytest.mark.parametrize(
    ("counts", "share", "held"),
    [
        ((100, 100), 0.1, (10, 10)),
        (
            (10, 2, 1),
            0.25,
            (2, 1, 0),
        ),  # round(3.25) images; each class gives one before any gives two, the last gives none
        ((5, 5, 5), 0.1, (1, 1, 0)),  # round(1.5) is 2: the share does not allow one of each class
        ((3, 3), 0.99, (2, 2)),  # the last image of a class stays
        ((4, 4), 0.01, (1, 0)),  # at least one
    ],
)
def test_held_out_counts(counts, share, held):
    labels, ids = invented(*counts)
    mask = splits.hold_out(labels, ids, share, "val:0:")
    assert tuple(np.bincount(labels[mask], minlength=len(counts))) == held


def test_held_out_images_depend_on_the_salt_and_not_on_the_subset():
    labels, ids = invented(200)
    first, second = (chosen(ids, splits.hold_out(labels, ids, 0.2, salt)) for salt in ("val:0:", "val:1:"))
    assert first != second
    lucky = chosen(ids, splits.subset(labels, ids, 40))
    assert 0 < len(first & lucky) < 25, "drawn independently, about 8 of 40 are shared"


# --- Groups ---


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_groups_of_one_change_nothing_and_a_pair_little(share):
    labels, ids = invented(60, 41, 7, 3)
    plain = splits.hold_out(labels, ids, share, "a")
    apart = np.random.default_rng(1).permutation(len(labels))
    assert (splits.hold_out(labels, ids, share, "a", apart) == plain).all()
    torn = apart.copy()
    one, other = np.flatnonzero(plain & (labels == 0))[0], np.flatnonzero(~plain & (labels == 0))[0]
    torn[one] = torn[other]
    held = splits.hold_out(labels, ids, share, "a", torn)
    assert held[one] == held[other]
    assert (held != plain).sum() <= 2
    assert (np.bincount(labels[held], minlength=4) == np.bincount(labels[plain], minlength=4)).all()


def test_no_group_is_torn_whatever_their_sizes_and_classes():
    for seed in range(20):
        draw = np.random.default_rng(seed)
        labels, ids = invented(40, 25, 10, seed=seed)
        groups = draw.integers(0, 30, len(labels))  # of 2 or 3 images on average, most of them over several classes
        held = splits.hold_out(labels, ids, 0.3, "a", groups)
        assert not set(groups[held]) & set(groups[~held])
        assert held.any()
        assert (np.bincount(labels[~held], minlength=3) > 0).all()
        mixed = draw.permutation(len(labels))
        assert (held[mixed] == splits.hold_out(labels[mixed], ids[mixed], 0.3, "a", groups[mixed] + 7)).all()


@pytest.mark.parametrize(
    ("groups", "held"),
    [
        ([0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 2),  # six copies stay; two of the single ones fill the share of two
        ([0, 0, 0, 0, 0, 0, 0, 1, 1, 1], 3),  # neither group fits into two: the smaller one goes
        ([0] * 10, 0),  # one picture ten times cannot be divided
    ],
)
def test_large_groups_worked_by_hand(groups, held):
    labels, ids = invented(10)
    mask = splits.hold_out(labels, ids, 0.2, "a", np.array(groups))
    assert mask.sum() == held
    assert not mask[0]


def test_alike_are_images_of_identical_pixels():
    images = np.zeros((5, 3, 4, 4), np.uint8)
    images[1, 0, 0, 0] = images[3, 0, 0, 0] = 1
    images[4, 2, 3, 3] = 1
    assert splits.alike(images).tolist() == [0, 1, 0, 1, 2]
