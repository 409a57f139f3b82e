"""Small data sets as files: a mapping of path -> bytes, written as a folder, a tar or a zip."""

import io
import pickle
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The classes of CIFAR-10 as its page lists them."""


def picture(seed: int, size: int = 8, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """An image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return encoded(Image.fromarray(pixels).convert(mode), kind)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_class(*tops: str, each: int = 6, classes: tuple[str, ...] = ("cat", "dog"), size: int = 8) -> dict[str, bytes]:
    """Different PNG images for every class, below each of the folders `tops` ('' for none)."""
    paths = [f"{top}{name}/{number}.png" for top in tops for name in classes for number in range(each)]
    return {path: picture(seed, size) for seed, path in enumerate(paths)}


def folder(place: Path, tree: dict[str, bytes]) -> Path:
    for name, content in tree.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def tar(place: Path, tree: dict[str, bytes], top: str = "", hard: dict | None = None, soft: dict | None = None) -> Path:
    """`hard` and `soft` are links as name -> target, written as they stand behind the files."""
    with tarfile.open(place, "w:gz" if place.name.endswith(".gz") else "w") as archive:
        for name, content in tree.items():
            member = tarfile.TarInfo(top + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for kind, links in ((tarfile.LNKTYPE, hard), (tarfile.SYMTYPE, soft)):
            for name, target in (links or {}).items():
                member = tarfile.TarInfo(top + name)
                member.type, member.linkname = kind, target
                archive.addfile(member)
    return place


def zipped(place: Path, tree: dict[str, bytes], top: str = "", soft: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(place, "w") as archive:
        for name, content in tree.items():
            archive.writestr(top + name, content)
        for name, target in (soft or {}).items():
            info = zipfile.ZipInfo(top + name)
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16  # as Info-ZIP does with -y
            archive.writestr(info, target)
    return place


def named(content: bytes, at: int) -> bytes:
    """A zip whose directory has byte `at` of every entry changed to 1: 8 is the flag of encryption,
    10 the compression."""
    whole, place = bytearray(content), 0
    while (place := whole.find(b"PK\x01\x02", place)) >= 0:
        whole[place + at] = 1
        place += 4
    return bytes(whole)


def tiny_imagenet(each: int = 3) -> dict[str, bytes]:
    """The original layout, with two classes of one name, a grey image, and the unlabelled images of the test folder."""
    tree = {"wnids.txt": b"n02\nn01\nn03\n", "words.txt": b"n01\tcrane, bird\nn02\tcrane\nn03\tgoldfish\nn09\towl\n"}
    rows = []
    for seed, wnid in enumerate(("n02", "n01", "n03")):
        tree[f"train/{wnid}/{wnid}_boxes.txt"] = b"0\n"
        for number in range(each):
            mode = "L" if number == 0 else "RGB"
            tree[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = picture(10 * seed + number, 64, "JPEG", mode)
        tree[f"val/images/val_{seed}.JPEG"] = picture(900 + seed, 64, "JPEG")
        rows.append(f"val_{seed}.JPEG\t{wnid}\t0\t0\t60\t60\n")
    return tree | {
        "val/val_annotations.txt": "".join(rows).encode(),
        "test/images/test_0.JPEG": picture(99, 64, "JPEG"),
    }


def cifar10(train: int, test: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels (N, 32, 32, 3) and labels of invented images, with so many images a class."""
    draw = np.random.default_rng(7)
    labels = {"train": np.tile(np.arange(10), train), "test": np.tile(np.arange(10), test)}
    return {name: (draw.integers(0, 256, (len(y), 32, 32, 3), np.uint8), y) for name, y in labels.items()}


def cifar10_files(images: dict) -> dict[str, bytes]:
    """CIFAR-10 as lossless WebP files by class, under names that say nothing."""
    return {
        f"{split}/{CIFAR10[label]}/{number}.webp": encoded(Image.fromarray(image), "WEBP", lossless=True)
        for split, (pixels, labels) in images.items()
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True))
    }


def cifar10_batches(images: dict) -> dict[str, bytes]:
    """CIFAR-10 in the published form: pickles of (N, 3072) bytes, all red values first, then green, then blue."""
    (pixels, labels), test = images["train"], images["test"]
    cuts = np.array_split(np.arange(len(labels)), 5)
    batches = {f"data_batch_{n + 1}": (pixels[cut], labels[cut]) for n, cut in enumerate(cuts)} | {"test_batch": test}
    tree = {
        name: pickle.dumps({"data": data.transpose(0, 3, 1, 2).reshape(-1, 3072), "labels": truth.tolist()})
        for name, (data, truth) in batches.items()
    }
    tree["batches.meta"] = pickle.dumps({"label_names": list(CIFAR10)})
    return {f"cifar-10-batches-py/{name}": content for name, content in tree.items()}
