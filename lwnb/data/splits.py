"""Which images belong to a subset or to a held-out split: by hash, so that the order of files never matters."""

import hashlib

import numpy as np


def order(labels: np.ndarray, ids: np.ndarray, salt: str = "") -> np.ndarray:
    """Indices that sort images by label, then by hash.

    Parameters
    ----------
    labels : (N,) integers from 0
    ids : (N, 32) uint8, the SHA-256 that identifies each image
    salt : sort by SHA-256 of `salt` and the identity in hexadecimal digits, instead of by the identity itself
    """
    if salt:
        salted = (hashlib.sha256((salt + row.tobytes().hex()).encode()).digest() for row in ids)
        ids = np.frombuffer(b"".join(salted), np.uint8).reshape(-1, 32)
    words = np.ascontiguousarray(ids).view(">u8")  # (N, 4): compared as numbers, they sort as the bytes do
    return np.lexsort((*words.T[::-1], labels))


def subset(labels: np.ndarray, ids: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    """Indices, ascending, of a stratified subset; for one seed, the smaller ones lie inside the larger ones.

    The image at place k of a class of m, in the order of hashes, has rank (k + 1/2) / m; those with the smallest ranks
    are taken, so that every class keeps its share to within one image. A size of 0, or beyond N, takes all.
    """
    if size == 0 or size >= len(labels):
        return np.arange(len(labels))
    place, count = _places(labels, ids, f"{seed}:" if seed else "")
    return np.sort(np.lexsort((labels, (place + 0.5) / count))[:size])


def hold_out(
    labels: np.ndarray, ids: np.ndarray, share: float, salt: str, groups: np.ndarray | None = None
) -> np.ndarray:
    """Mask (N,) of a stratified held-out split of `round(share * N)` images, at least one.

    Every class gives its first image before any gives its second, and none gives its last one.

    Parameters
    ----------
    groups : (N,) integers, equal for images that stay on one side; where all differ, the split is the same without them
    """
    place, count = _places(labels, ids, salt)
    ranked = np.lexsort((labels, place / count))
    ranked = ranked[place[ranked] < count[ranked] - 1]
    mask = np.zeros(len(labels), bool)
    mask[ranked[: max(1, round(share * len(labels)))]] = True
    if groups is None or len(np.unique(groups)) == len(groups):
        return mask
    return _untorn(labels, groups, order(labels, ids, salt), np.bincount(labels[mask], minlength=labels.max() + 1))


def _untorn(labels: np.ndarray, groups: np.ndarray, arranged: np.ndarray, quota: np.ndarray) -> np.ndarray:
    """A held-out mask (N,) that tears no group.

    In the order given, groups are taken whole while no class gives more than its quota. A class that could give
    nothing, because each of its groups is larger than that, gives its smallest one.
    """
    members, taken, mask = {}, np.zeros_like(quota), np.zeros(len(labels), bool)
    for index in arranged:
        members.setdefault(groups[index], []).append(index)

    def take(group: list[int], most: np.ndarray) -> None:
        after = taken + np.bincount(labels[group], minlength=len(quota))
        if (after <= most).all():
            taken[:], mask[group] = after, True

    for group in members.values():
        take(group, quota)
    for group in sorted(members.values(), key=len):
        if ((quota > 0) & (taken == 0))[labels[group]].any():
            take(group, np.bincount(labels) - 1)
    return mask


def alike(images: np.ndarray) -> np.ndarray:
    """(N,) integers from 0, equal for those images (N, …) whose pixels are identical."""
    seen = {}
    return np.array([seen.setdefault(hashlib.sha256(image).digest(), len(seen)) for image in images], np.int64)


def _places(labels: np.ndarray, ids: np.ndarray, salt: str) -> tuple[np.ndarray, np.ndarray]:
    """Each image's place in its class by hash, from 0, and the size of that class."""
    counts = np.bincount(labels)
    first = np.cumsum(counts) - counts
    arranged = order(labels, ids, salt)
    places = np.empty(len(labels), np.int64)
    places[arranged] = np.arange(len(labels)) - first[labels[arranged]]
    return places, counts[labels]
