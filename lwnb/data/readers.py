"""How each data set is read: its layout, its classes, and its images as uint8 arrays of one size."""

import hashlib
import posixpath
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from lwnb.base import doors
from lwnb.base.errors import DataError, shown
from lwnb.data import files, images, layout, splits
from lwnb.data.files import Files, some
from lwnb.plan.facts import DATASETS
from lwnb.plan.run import Source

TEST_SHARE = 0.2
"""Held out for testing where a data set has no test split of its own."""

COPY = re.compile(r"(?:copy of )?(.+?)(?:[ _-]*copy[ _-]*\d*)?(?: ?\(\d+\))?", re.IGNORECASE | re.DOTALL)
"""The name of a file without its ending; what stands before `copy`, `- Copy`,
`_copy2` or `(1)` is that of the original."""

ALIKE = 0.9
"""Correlation of pixels above which a file named as a copy is one. Browsers name other pictures so as well: those of
one class correlate by more in 1 of 10,000 pairs of photographs, copies that were scaled,
brightened or compressed again nearly always."""


@dataclass(frozen=True)
class Part:
    """Images of one split: (N, 3, H, W) uint8, labels (N,) int64, identities and content hashes (N, 32) uint8."""

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    contents: np.ndarray

    def take(self, which: np.ndarray) -> "Part":
        """The images at these indices, or under this mask."""
        return Part(*(getattr(self, field.name)[which] for field in fields(self)))


@dataclass(frozen=True)
class Contents:
    """A whole data set as it was read: class names as stored and as shown, both splits, files that were left out.

    `skipped` are files that should have been images; `notes` are sentences about everything else that was not taken.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    train: Part
    test: Part
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def contents(source: Source, path: Path | None, image_size: int | None = None) -> Contents:
    """Read a data set from where `archives.find` found it; `image_size` is that of images without a size of their own.

    Raises
    ------
    DataError
        A layout that is not the expected one, classes without enough images, or images that cannot be read.
    """
    return doors.resolve(DATASETS[source.dataset].read)(source, path, image_size)


def _hashes(items: Iterable[bytes]) -> np.ndarray:
    joined = b"".join(hashlib.sha256(item).digest() for item in items)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def _from_pixels(pixels: np.ndarray, labels: Sequence[int]) -> Part:
    """Images (N, H, W, 3) that are known by their pixels."""
    ids = _hashes(image.tobytes() for image in pixels)
    return Part(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), np.asarray(labels, np.int64), ids, ids)


def digits(source: Source, path: None, image_size: int | None) -> Contents:
    """Scikit-learn's digits, made RGB, with a test split of our own."""
    from sklearn.datasets import load_digits

    found = load_digits()
    grey = np.round(found.images * 255 / 16).astype(np.uint8)
    names = tuple(map(str, found.target_names))
    return Contents(names, names, *_divided(_from_pixels(np.stack([grey] * 3, axis=-1), found.target)))


def _divided(whole: Part, groups: np.ndarray | None = None) -> tuple[Part, Part]:
    test = splits.hold_out(whole.labels, whole.ids, TEST_SHARE, "test:", groups)
    return whole.take(~test), whole.take(test)


def _copies(whole: Part, paths: Sequence[str]) -> np.ndarray:
    """(N,) integers, equal for copies of one picture: identical pixels,
    or nearly so beside a name such as `x (1).jpg`."""
    groups = splits.alike(whole.images)
    stems = [posixpath.splitext(path)[0] for path in paths]
    place = {stem: index for index, stem in enumerate(stems)}
    for copy, stem in enumerate(stems):
        folder, slash, name = stem.rpartition("/")
        original = place.get(folder + slash + COPY.fullmatch(name)[1], copy)
        if groups[original] != groups[copy] and _correlation(*whole.images[[original, copy]]) > ALIKE:
            groups[groups == groups[copy]] = groups[original]
    return groups


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (image.astype(np.float64).ravel() - image.mean() for image in (a, b))
    return a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9)


def cifar(source: Source, path: Path, image_size: int | None) -> Contents:
    """CIFAR-10 or CIFAR-100: the published batches, or image files in a folder for each class."""
    official = path.name.startswith("cifar-10")
    contents = _cifar_batches(source.dataset, path) if official else _cifar_files(source, path)
    expected = DATASETS[source.dataset].classes
    if len(contents.names) != expected:
        raise DataError(f"{path}: {source.dataset} has {expected} classes, found {len(contents.names)}")
    return contents


def _cifar_batches(dataset: str, path: Path) -> Contents:
    """The published archive or its folder, by torchvision, which checks every file's MD5."""
    from torchvision import datasets
    from torchvision.datasets.utils import extract_archive

    kind = getattr(datasets, dataset.upper())  # CIFAR10 or CIFAR100
    with tempfile.TemporaryDirectory() as aside:
        try:
            if path.is_file():
                extract_archive(path, aside)
            train, test = (kind(aside if path.is_file() else path.parent, train=flag) for flag in (True, False))
        except (RuntimeError, OSError, *files.DAMAGED) as error:
            raise DataError(f"{path}: not the published {dataset}, or damaged: {error} Get it again.") from error
    if list(train.classes) != sorted(train.classes):
        raise DataError(f"{path}: classes are not in alphabetical order")
    names = tuple(train.classes)
    return Contents(names, names, *(_from_pixels(part.data, part.targets) for part in (train, test)))


def _cifar_files(source: Source, path: Path) -> Contents:
    contents = _tree(source, path, DATASETS[source.dataset].side, exact=True)
    train, test = (
        _from_pixels(part.images.transpose(0, 2, 3, 1), part.labels) for part in (contents.train, contents.test)
    )
    return Contents(contents.names, contents.classes, train, test, contents.skipped, contents.notes)


def tiny_imagenet(source: Source, path: Path, image_size: int | None) -> Contents:
    """Tiny ImageNet in its original layout; its validation images, which have labels, are the test split."""
    with files.opened(path) as found:
        inside = [(name, name.split("/")) for name in found.names]
        train = [(name, parts[1]) for name, parts in inside if parts[0] == "train" and parts[2:3] == ["images"]]
        names = tuple(sorted({name for _, name in train}))
        test = _annotated(found, names, path)
        titles = _titles(_table(found, "words.txt", path), names)
        entries, side = {"train": train, "test": test}, DATASETS[source.dataset].side
        return _contents(source, found, names, titles, entries, side, exact=True)


def _table(files: Files, name: str, path: Path) -> list[list[str]]:
    """The lines of a text file, split at tabs."""
    if name not in files.names:
        raise DataError(f"{path}: not the original layout of Tiny ImageNet: {name} is missing")
    return [line.split("\t") for line in files.read(name).decode().splitlines() if "\t" in line]


def _annotated(files: Files, names: tuple[str, ...], path: Path) -> list[tuple[str, str]]:
    """The (path, class) of the annotated validation images, which serve as test split."""
    table = {f"val/images/{row[0]}": row[1] for row in _table(files, "val/val_annotations.txt", path)}
    present = {name for name in files.names if name.startswith("val/images/")}
    if table.keys() != present or not set(table.values()) <= set(names):
        raise DataError(f"{path}: val/val_annotations.txt does not fit the files in val/images and train")
    return [(name, table[name]) for name in files.names if name in table]


def _titles(words: list[list[str]], names: tuple[str, ...]) -> tuple[str, ...]:
    """The first synonym of each WordNet name; with the WordNet name behind it where two would be the same."""
    table = {row[0]: row[1].split(",")[0] for row in words}
    first = [table.get(name, name) for name in names]
    count = Counter(first)
    return tuple(title if count[title] == 1 else f"{title} ({name})" for title, name in zip(first, names, strict=True))


def folder(source: Source, path: Path, image_size: int | None) -> Contents:
    """A folder, tar or zip of images, with a folder for each class, brought to one size."""
    if image_size is None:
        raise DataError("image_size: a folder of images has no size of its own; give one")
    return _tree(source, path, image_size)


def _tree(source: Source, path: Path, size: int, exact: bool = False) -> Contents:
    with files.opened(path) as found:
        seen = layout.read(found, path)
        names = tuple(sorted({name for part in seen.entries.values() for _, name in part}))
        titles = tuple(map(shown, names))
        return _contents(source, found, names, titles, seen.entries, size, exact, seen.notes)


def _contents(source, found, names, classes, entries, size, exact, notes=()) -> Contents:
    """Decode the entries, deal with what cannot be read, and see that every class has enough images."""
    bad, parts, remarks = {}, {}, Counter()
    for split, listed in entries.items():
        parts[split], faults, seen = _part(found, listed, names, size, exact)
        bad |= faults
        remarks += seen
    if bad and source.bad_images == "refuse":
        reasons = [f"{name} ({reason})" for name, reason in sorted(bad.items())]
        raise DataError(
            f"{len(bad)} of {sum(map(len, entries.values()))} files cannot be read as images: {some(reasons)}. "
            "Repair or remove them, or set bad_images to 'skip' to leave them out."
        )
    notes = [*notes, *_unreadable(bad)]
    if "all" in parts:
        whole = parts["all"]
        groups = _copies(whole, [path for path, _ in entries["all"] if path not in bad])
        pairs = np.unique(np.stack([groups, whole.labels]), axis=1)  # a picture under two labels counts for both
        shared = _shared(*pairs, names)
        _enough({"all": pairs[1]}, names, entries, [*notes, *shared])
        train, test = _divided(whole, groups)
        _enough({"train": train.labels, "test": test.labels}, names, entries, [*notes, *shared])
        notes += shared
    else:
        _enough({split: part.labels for split, part in parts.items()}, names, entries, notes)
        train, test = parts["train"], parts["test"]
    return Contents(names, classes, train, test, tuple(map(shown, sorted(bad))), (*notes, *_remarked(remarks)))


def _unreadable(bad: dict[str, str]) -> list[str]:
    """What to say of files that could not be read: the first with their reasons, and how many more."""
    reasons = [f"{name} ({reason})" for name, reason in sorted(bad.items())]
    rest = " (`lwnb runs --key` names all that a run left out)" if len(bad) > 3 else ""
    return [f"Skipped, as they cannot be read: {some(reasons, most=3)}{rest}."] if bad else []


def _shared(groups: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> list[str]:
    """What to say of classes most of whose pictures stand in other classes as well.

    Parameters
    ----------
    groups, labels : (N,) integers, each picture of each class once
    """
    found, several = [], np.bincount(groups)[groups] > 1
    for label in np.unique(labels[several]):
        own = labels == label
        count = np.sum(own & several)
        if count > own.sum() / 2:
            others = np.unique(labels[np.isin(groups, groups[own]) & ~own])
            found.append(
                f"{count:,} of {own.sum():,} pictures of {shown(names[label])} stand under "
                f"{some([names[other] for other in others])} as well: remove them from all classes but one."
            )
    return found


def _remarked(remarks: Counter) -> list[str]:
    """What to say of images by what `images.decode_all` remarked on them."""
    notes = []
    if several := remarks["several"]:
        notes.append(f"Files with several images, of which the first one is used: {several:,}.")
    if dark := remarks["dark"]:
        notes.append(
            f"Nearly black: {dark:,} of {remarks['deep']:,} files with 16 bits a channel hold no value above 4,095, "
            "as if "
            "they had been taken with 12 bits or fewer; multiply their values so that they reach 65,535."
        )
    return notes


def _enough(labels: dict[str, np.ndarray], names: tuple[str, ...], entries, notes: Sequence[str]) -> None:
    """Every class has enough of the images with these labels.

    Parameters
    ----------
    entries : split -> the (path, class) of its files, to name the only one of a class
    notes : sentences on what was left out, to tell where a class has too few
    """
    if len(names) < 2:
        raise DataError(f"at least 2 classes are needed, found {len(names)}: {', '.join(names) or 'no images at all'}")
    least = {"train": 2, "test": 1, "all": round(1 / TEST_SHARE)}  # train/ gives a validation image as well
    for split, own in labels.items():
        counts = np.bincount(own, minlength=len(names))
        few = {name: count for name, count in zip(names, counts, strict=True) if count < least[split]}
        if few:
            where = f"readable images in {split}/" if split in entries else f"images for {split}ing"
            where = "different images in a folder that is split" if split == "all" else where
            listed = entries.get(split, entries.get("all", []))
            raise DataError(
                f"each class needs at least {least[split]} {where}; too few: {some(_with_only(few, listed))}. "
                + " ".join(["Add images; or move out, or remove, what is no class.", *notes])
            )


def _with_only(counts: dict[str, int], listed: list[tuple[str, str]]) -> list[str]:
    """Classes with the count of their images, and the path of the only file where there is one alone."""
    files = defaultdict(list)
    for path, name in listed:
        files[name].append(path)
    return [f"{n} ({count}{': ' + files[n][0] if len(files[n]) == 1 else ''})" for n, count in counts.items()]


def _part(
    found: Files, listed: list[tuple[str, str]], names, size: int, exact: bool
) -> tuple[Part, dict[str, str], Counter]:
    """The images of one split, known by their paths; the reason for each file that cannot be read;
    counts of remarks."""
    label = {name: number for number, name in enumerate(names)}
    paths = [path for path, _ in listed]
    labels = np.array([label[name] for _, name in listed], np.int64)
    ids = _hashes(path.encode(errors="surrogateescape") for path in paths)
    pixels, contents, faults, remarks = images.decode_all(paths, found.read, size, exact)
    seen = Counter(remark for told in remarks.values() for remark in told)
    whole = Part(pixels, labels, ids, contents)
    if not faults:
        return whole, {}, seen
    return whole.take(np.array([path not in faults for path in paths])), faults, seen
