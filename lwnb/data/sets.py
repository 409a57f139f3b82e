"""A data set as tensors in memory: decoded once, cached as one file, cut by hash into pools, subsets and splits."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from lwnb.base import disk
from lwnb.base.errors import DataError
from lwnb.base.places import home
from lwnb.data import archives, census, readers, splits
from lwnb.plan.facts import DATASETS
from lwnb.plan.run import Run, Source

VERSION = 2
"""Of the readers and the cache's layout. Raise it when the same files would give other tensors."""

PARTS = ("images", "labels", "ids", "contents")


@dataclass(frozen=True)
class Split:
    """Images (N, 3, H, W) uint8, labels (N,) int64 and identities (N, 32) uint8, sorted by label, then identity."""

    images: Tensor
    labels: Tensor
    ids: Tensor

    def take(self, which: np.ndarray) -> "Split":
        """The images at these indices, or under this mask; itself, uncopied, where that is all of them."""
        if which.dtype != bool and len(which) == len(self.labels):
            return self
        index = torch.from_numpy(which)
        return Split(self.images[index], self.labels[index], self.ids[index])


@dataclass(frozen=True)
class Dataset:
    """A data set's pool: the images that count, their classes by label, the digest of it all, what was left out.

    `skipped` are files that could not be read, `notes` sentences on what else was not taken; see `readers.Contents`.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    digest: str
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """What a run sees: its classes, its three splits, and the files that the data set left out."""

    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    skipped: tuple[str, ...]


def load(source: Source, image_size: int | None = None) -> Dataset:
    """The pool of a data set; decoded the first time, then read from `data/cache/` in the home.

    What is known of its images is kept by `lwnb.data.census`.

    Parameters
    ----------
    image_size : pixels a side that images are brought to whose data set has no size of its own

    Raises
    ------
    DataError
        The data set is not there, damaged, or has another digest than `source.digest`.
    """
    tensors, about = _whole(source, image_size)
    keep = {
        name: splits.subset(tensors[f"{name}.labels"].numpy(), tensors[f"{name}.ids"].numpy(), size)
        for name, size in (("train", source.pool_train), ("test", source.pool_test))
    }
    found = about["digest"]
    if any(len(index) < len(tensors[f"{name}.labels"]) for name, index in keep.items()):
        found = _digest(about["names"], {name: _columns(tensors, name, index) for name, index in keep.items()})
    train, test = (_split(tensors, name).take(keep[name]) for name in ("train", "test"))
    _verify(source, found, len(train.labels), len(test.labels))
    left = (tuple(about[name]) for name in ("skipped", "notes"))
    whole = Dataset(source.dataset, tuple(about["classes"]), train, test, found, *left)
    with _lock(source):
        _count(whole)
    return whole


def task(run: Run) -> Task:
    """What a run sees: its classes, its subset, and the validation split taken out of that.

    `train_size` counts the images of training and validation together; of the user's own
    images, copies stay on one side.

    Raises
    ------
    DataError
        As `load`; `classes` that are not there; a size that leaves a class without training images.
    """
    source = run.source or Source(dataset=run.dataset)
    whole = load(source.model_copy(update={"digest": run.digest}), run.image_size)
    first, end = _range(run, len(whole.classes))
    pool, test = (_between(split, first, end) for split in (whole.train, whole.test))
    pool = _subset(pool, run.train_size, run.subset_seed)
    own = DATASETS[run.dataset].own
    copies = splits.alike(pool.images.numpy()) if own else None  # published splits stay as they are
    mask = splits.hold_out(pool.labels.numpy(), pool.ids.numpy(), run.val_share, f"val:{run.split_seed}:", copies)
    train, val = pool.take(~mask), pool.take(mask)
    classes = whole.classes[first:end]
    _all_classes(run, train, val, classes)
    return Task(classes, train, val, _subset(test, run.test_size, run.subset_seed), whole.skipped)


def overlap(a: Split, b: Split) -> int:
    """How many images of `a` stand in `b` too, by SHA-256 of their pixels, (3, H, W) row by row."""
    seen = set(_pixel_hashes(b))
    return sum(image in seen for image in _pixel_hashes(a))


NEAR = 0.9
"""Correlation above which `near` takes two images for near-duplicates. Of 2,000 test images of CIFAR-10 it marks 5 %
for its own training images, where Barz and Denzler (2020) found 3.3 % of all: it errs towards marking too many."""


def near(images: Tensor, among: Tensor) -> np.ndarray:
    """Which images (N, 3, H, W) have a near-duplicate among others, as a mask (N,): mirrored, brightened,
    rescaled ones too.

    By the correlation of their pixels at 16 x 16, all channels together.
    """
    ours, highest = _outlines(images), torch.zeros(len(images))
    for some in among.split(10_000):
        theirs = _outlines(some)
        for side in (ours, ours.flip(-1)):
            highest = torch.maximum(highest, (side.flatten(1) @ theirs.flatten(1).T).amax(1))
    return (highest > NEAR).numpy()


def _outlines(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) at 16 x 16, each without its mean and of length 1; a plain one is all zero."""
    small = F.adaptive_avg_pool2d(images.float(), 16)
    small = small - small.mean((1, 2, 3), keepdim=True)
    return small / small.flatten(1).norm(dim=1).clamp_min(1e-6)[:, None, None, None]


def _pixel_hashes(split: Split) -> list[bytes]:
    return [hashlib.sha256(image).digest() for image in split.images.numpy()]


def _count(whole: Dataset) -> None:
    """Save the record of a data set's images, unless there is one that says so already."""
    sides = (whole.train, whole.test)
    train, test = (torch.bincount(side.labels, minlength=len(whole.classes)).tolist() for side in sides)
    known = {"dataset": whole.name, "image_size": whole.train.images.shape[-1], "classes": list(whole.classes)}
    known |= {"train": train, "test": test, "skipped": len(whole.skipped), "notes": list(whole.notes)}
    if known.items() <= (census.find(whole.digest) or {}).items():
        return
    train, test = map(_pixel_hashes, sides)
    labelled = set(zip(train + test, torch.cat([side.labels for side in sides]).tolist(), strict=True))
    pictures = set(train)
    copies = {
        "across": sum(image in pictures for image in test),
        "labels": sum(count > 1 for count in Counter(image for image, _ in labelled).values()),
        "within": [len(images) - len(set(images)) for images in (train, test)],
    }
    census.save(whole.digest, known | copies)


# --- Cache ---


def _whole(source: Source, image_size: int | None) -> tuple[dict[str, Tensor], dict]:
    """All tensors of a data set and what is known about them, from its cache; made anew unless that is sound."""
    with _lock(source):  # one process downloads and decodes, the others wait
        path, cache = archives.find(source), _cache()
        file = cache / f"{source.dataset}-{_place(source, path, image_size)}.safetensors"
        if not _sound(file, path):
            for torn in cache.glob(f"{source.dataset}-*.tmp*"):
                torn.unlink()
            before = _looks(path)
            _write(file, readers.contents(source, path, image_size))
            _seal(file, {"images": before, "cache": _looks(file)})
        return _read(file)


def _cache() -> Path:
    folder = home() / "data" / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _lock(source: Source) -> FileLock:
    return FileLock(_cache() / f"{source.dataset}.lock")


def _place(source: Source, path: Path | None, image_size: int | None) -> str:
    size = None if DATASETS[source.dataset].side else image_size
    return hashlib.sha256(json.dumps([VERSION, source.bad_images, size, str(path)]).encode()).hexdigest()[:16]


def _looks(path: Path | None) -> dict[str, str]:
    """What is kept of an archive, a folder or a file, to see later whether it is still the same."""
    return {"fingerprint": archives.fingerprint(path), "checksum": archives.checksum(path)} if path else {}


def _seal(file: Path, looks: dict[str, dict]) -> None:
    disk.write(file.with_suffix(".json"), json.dumps(looks).encode())


def _sound(file: Path, path: Path | None) -> bool:
    """Whether a cache is as it was written, and the images are those that it was made from.

    By what the system says of the files; by their content only where that has moved, as by `cp -p`, `mv` or `chmod`.
    """
    try:
        looks = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        before = {name: looks[name].get("fingerprint") for name in ("images", "cache")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet, or damaged
        return False
    for name, place in (("cache", file), ("images", path)):
        if place and before[name] != (now := archives.fingerprint(place)):
            if looks[name].get("checksum") != archives.checksum(place):
                return False
            looks[name]["fingerprint"] = now
            _seal(file, looks)
    return True


def _read(file: Path) -> tuple[dict[str, Tensor], dict]:
    with safe_open(file, "pt") as content:
        about = json.loads(content.metadata()["about"])
    return load_file(file), about  # memory-mapped


def _write(file: Path, contents: readers.Contents) -> None:
    tensors = {}
    for name in ("train", "test"):
        part = getattr(contents, name)
        part = part.take(splits.order(part.labels, part.ids))
        tensors |= {f"{name}.{field}": torch.from_numpy(getattr(part, field)).contiguous() for field in PARTS}
    digest = _digest(contents.names, {name: _columns(tensors, name) for name in ("train", "test")})
    about = {"digest": digest} | {name: getattr(contents, name) for name in ("names", "classes", "skipped", "notes")}
    with disk.whole(file) as aside:
        save_file(tensors, aside, {"about": json.dumps(about)})
        aside.chmod(0o644)  # safetensors writes for the owner alone


def _columns(tensors: dict[str, Tensor], name: str, index=slice(None)) -> list[np.ndarray]:
    return [tensors[f"{name}.{field}"].numpy()[index] for field in ("labels", "ids", "contents")]


def _split(tensors: dict[str, Tensor], name: str) -> Split:
    return Split(*(tensors[f"{name}.{field}"] for field in ("images", "labels", "ids")))


def _digest(names: list[str], columns: dict[str, list[np.ndarray]]) -> str:
    """SHA-256 over sorted lines of split, class name, identity and content hash, parted by tabs."""
    lines = sorted(
        f"{split}\t{names[label]}\t{identity.tobytes().hex()}\t{content.tobytes().hex()}\n"
        for split, rows in columns.items()
        for label, identity, content in zip(*rows, strict=True)
    )
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _verify(source: Source, found: str, train: int, test: int) -> None:
    if source.digest not in ("", found):
        raise DataError(
            f"digest: the images of {source.dataset} found here ({train:,} for training, {test:,} for testing) have "
            f"digest {found}, expected is {source.digest}. Use the files (data_root) and the sizes (pool_train, "
            "pool_test) that the digest was made with, or set digest to '' to accept these images as another data set."
        )


# --- Splits ---


def _range(run: Run, classes: int) -> tuple[int, int]:
    if run.classes == "all":
        return 0, classes
    first, end = map(int, run.classes.split(":"))
    if not (end <= classes and end - first >= 2):
        raise DataError(
            f"classes: {run.classes!r} is not possible: {run.dataset} has {classes} classes; "
            f"a range takes at least 2 of 0:{classes}"
        )
    return first, end


def _between(split: Split, first: int, end: int) -> Split:
    inside = np.flatnonzero((split.labels.numpy() >= first) & (split.labels.numpy() < end))
    split = split.take(inside)
    return Split(split.images, split.labels - first, split.ids)


def _subset(split: Split, size: int, seed: int) -> Split:
    return split.take(splits.subset(split.labels.numpy(), split.ids.numpy(), size, seed))


def _all_classes(run: Run, train: Split, val: Split, classes: tuple[str, ...]) -> None:
    counts = torch.bincount(train.labels, minlength=len(classes)).tolist()
    without = [name for name, count in zip(classes, counts, strict=True) if not count]
    if without or not len(val.labels):
        what = f"no training image of {', '.join(without[:20])}" if without else "no validation image"
        raise DataError(f"train_size: {run.train_size} leaves {what}; take more images of these {len(classes)} classes")
