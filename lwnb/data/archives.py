"""Where images lie: known archives and folders on disk, and checked downloads."""

import hashlib
import os
import socket
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from lwnb.base import disk
from lwnb.base.errors import DataError
from lwnb.base.places import home
from lwnb.data import files
from lwnb.plan.facts import DATASETS
from lwnb.plan.run import Source

TIMEOUT = 60
"""Seconds without a byte after which a download is given up."""


def find(source: Source) -> Path | None:
    """The archive or folder of a data set, downloaded if `data_root` leaves that open.

    None for a data set that is part of an installed package.

    Raises
    ------
    DataError
        It is not there, or cannot be downloaded; says where it was looked for and how to get it.
    """
    if DATASETS[source.dataset].inside:
        return None
    return here(source) or _download(source.dataset, _looked(source))


def here(source: Source) -> Path | None:
    """The archive or folder of a data set, or None where it would have to be downloaded first.

    Raises
    ------
    DataError
        It is not there, and no download would bring it; says where it was looked for and how to get it.
    """
    for place in _places(source):
        if place.exists():
            return place.resolve()
    if not DATASETS[source.dataset].origin:
        raise DataError(_looked(source) + "Set data_root to a folder, tar or zip of images.")
    if source.data_root:
        raise DataError(
            f"{_looked(source)}Correct data_root, or leave it out to download the data set. {_without_network()}"
        )
    return None


def _looked(source: Source) -> str:
    return f"{source.dataset}: not found; looked for {', '.join(map(str, _places(source)))}. "


def _places(source: Source) -> list[Path]:
    root = home() / Path(source.data_root or "data").expanduser()
    if DATASETS[source.dataset].own:
        return [root]
    names = DATASETS[source.dataset].files
    itself = source.data_root and (root.is_file() or root.name in names or (root / "train").is_dir())
    return [root] if itself else [root / name for name in names]


def _without_network() -> str:
    return f"Without a network these work: {', '.join(name for name, row in DATASETS.items() if row.inside)}."


def _download(dataset: str, looked: str) -> Path:
    """Fetch the published archive into `data/`, by torchvision; it gets its name only when its checksum is right."""
    from torchvision.datasets.utils import download_url

    url, md5 = DATASETS[dataset].origin
    target = home() / "data" / url.rsplit("/", 1)[1]
    for torn in target.parent.glob(f"{target.name}.tmp*"):  # a killed download; nobody else is at it: see data.load
        torn.unlink()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with disk.whole(target) as aside:
            download_url(url, aside.parent, aside.name, md5)
    except (OSError, RuntimeError, HTTPException) as error:
        raise DataError(
            f"{looked}The download of {url} failed, and nothing of it was kept: {error} "
            f"Try again, or put that file (MD5 {md5}) into {target.parent}, or set data_root to a copy that you have. "
            f"{_without_network()}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return target.resolve()


def fingerprint(path: Path) -> str:
    """A hash that moves whenever an archive or a file of a folder may have changed, without reading it.

    Of paths, sizes, inodes and times: of content (mtime), which copies take along, and of anything (ctime).
    """
    return _hash(path, lambda file: "{0.st_size} {0.st_ino} {0.st_mtime_ns} {0.st_ctime_ns}".format(os.stat(file)))


def checksum(path: Path) -> str:
    """A hash of an archive's bytes, or of the paths and bytes of a folder's files, wherever it lies."""
    return _hash(path, _digest)


def _digest(file: str | Path) -> str:
    if not os.path.isfile(file):
        return "no file"  # but a pipe, perhaps, which would keep one waiting
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash(path: Path, about: Callable[[str | Path], str]) -> str:
    """SHA-256 over what is to be said about each file;
    what the system does not let one look at has its error instead."""
    every = files.walk(path) if path.is_dir() else {"": path}
    found = hashlib.sha256()
    for name, file in sorted(every.items()):
        try:
            said = about(file)
        except OSError as error:
            said = type(error).__name__
        found.update(f"{name}\0{said}\n".encode(errors="surrogateescape"))
    return found.hexdigest()
