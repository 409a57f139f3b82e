"""The files inside a folder, a tar or a zip: read in place, without what systems leave behind, links followed."""

import errno
import lzma
import os
import posixpath
import re
import stat
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lwnb.base import errors
from lwnb.base.errors import DataError
from lwnb.data import images

HIDDEN = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "@recycle", "#recycle", "$recycle.bin", "lost+found"}
"""Left behind by systems and photo programs, in any case; so is everything whose name begins with a dot."""

SPLITS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst", "holdout", "pred", "unlabelled", "unlabeled"),
}
"""Names of the folders that hold the splits of a data set, in any case; more words may follow: `train_set`,
`Test Images`."""

PACKED = (".tar", ".zip", ".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".lzma")
"""Endings of archives that are read."""

STARTS = (b"PK", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\0\0")
"""How zips and compressed tars begin."""

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
"""What Python raises on an archive that is broken."""


WANTED = "set data_root to a folder, tar or zip that holds a folder of images for each class"
"""What to do where there is something else."""


def role(folder: str) -> str | None:
    """The split that a folder of this name holds, by `SPLITS`: train, val or test; None for any other name."""
    word = re.sub(r"[\W\d_]+|(images?|imgs?|data(set)?|sets?|split)", "", folder.casefold())
    return next((split for split, names in SPLITS.items() if word in names), None)


@dataclass(frozen=True)
class Files:
    """The files of a folder, a tar or a zip: their POSIX paths in the order of storage, and the bytes of one.

    A single folder around everything, or around all images, is left out of the paths: what lies beside it is `../name`.
    Hidden files are left out. A link stands for what it points to. Reading raises OSError where a file cannot be read,
    or where a link points to nothing. `folders` are the paths of folders, empty ones too; `notes` are sentences about
    what was left out.
    """

    names: tuple[str, ...]
    read: Callable[[str], bytes]
    folders: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@contextmanager
def opened(path: Path) -> Iterator[Files]:
    """The files of a folder, a tar or a zip, read in place.

    Raises
    ------
    DataError
        The file is no such archive, or not whole; while it is opened or later, within the `with` block.
    """
    if path.exists() and not path.is_dir() and not path.is_file():
        raise DataError(f"{path}: no file or folder of images but a pipe, device or socket; {WANTED}.")
    try:
        if path.is_dir():
            yield _files(walk(path, everything=True), _content)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield _files(_zip_members(archive, path), archive.read)
        else:
            with tarfile.open(path) as archive:
                yield _files(_tar_members(archive), lambda member: _damage(lambda: archive.extractfile(member).read()))
    except DAMAGED as error:
        raise DataError(f"{path}: {_not_an_archive(path, error)}") from error


def _not_an_archive(path: Path, error: Exception) -> str:
    """What a file is that could not be read as tar or zip, and what to do."""
    if images.is_image(path.name):
        return "one image alone; set data_root to a folder that holds a folder of images for each class."
    if path.suffix.lower() in (".7z", ".rar", ".zst", ".lz4", ".iso", ".dmg"):
        return (
            f"archives of the kind {path.suffix} are not read; "
            "unpack it, and set data_root to the folder that comes out."
        )
    if path.suffix.lower() not in PACKED and not _begins_as_archive(path):
        kind = f"files of the kind {path.suffix} are not read" if path.suffix else "not a tar or zip"
        return f"{kind}; {WANTED}."
    reason = str(error) if path.stat().st_size else "it is empty"
    if "\n" in reason:  # what tarfile tried, one kind of archive after the other
        reason = "no tar can be read from it" if _begins_as_archive(path) else "its content is that of no archive"
    return f"not a tar or zip, or not a whole one: {reason}. Get it again, or {WANTED}."


def _begins_as_archive(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(512)
    return start.startswith(STARTS) or start[257:262] == b"ustar"


def _files(handles: dict, read: Callable) -> Files:
    """Files from path -> handle: `read` takes a handle, one that is an OSError is raised;
    a folder's path ends with a slash."""
    handles = {name.removeprefix("./"): handle for name, handle in handles.items()}
    handles, hidden = ({n: h for n, h in handles.items() if _hidden(n) == flag} for flag in (False, True))
    around = _around(handles)
    handles = {name[len(around) :] if name.startswith(around) else f"../{name}": h for name, h in handles.items()}

    def content(name: str) -> bytes:
        if isinstance(handles[name], OSError):
            raise handles[name]
        return read(handles[name])

    lost = {name: h for name, h in handles.items() if isinstance(h, OSError) and not images.is_image(name)}
    names = tuple(name for name in handles if name and not name.endswith("/") and name not in lost)
    folders = tuple(name for name in handles if name.endswith("/"))
    notes = [f"Left out: {some([f'{name} ({error.strerror})' for name, error in lost.items()])}."] if lost else []
    return Files(names, content, folders, (*_told(hidden), *notes))


def _around(names: Iterable[str]) -> str:
    """The path of the folder around all images, with a slash at its end, or ''; folders named as splits are none."""
    inside = [n for n in names if images.is_image(n) or ("/" in n[:-1] and n[-1] != "/" and not images.is_sidecar(n))]
    around = ""
    while True:
        tops = {name[len(around) :].split("/")[0] for name in inside}
        if len(tops) != 1 or role(*tops) or not any(name.count("/", len(around)) > 1 for name in inside):
            return around
        around += f"{tops.pop()}/"


def _told(hidden: Iterable[str]) -> list[str]:
    """What to say of hidden files: nothing where none is an image."""
    paths = [name.split("/") for name in hidden if images.is_image(name) and "/._" not in f"/{name}"]  # macOS' own
    places = sorted({next(part for part in path if _hidden(part)) for path in paths})
    return [f"Images in hidden files and folders, left out: {len(paths)} ({some(places)})."] if paths else []


def some(items: Sequence[str], most: int = 20) -> str:
    """The first of these, and how many more there are."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(map(errors.shown, items[:most])) + more


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part.casefold() in HIDDEN for part in name.split("/"))


# --- A folder on disk ---


def walk(folder: Path, everything: bool = False) -> dict[str, str | OSError]:
    """POSIX path inside the folder -> path, sorted; links to folders are followed.

    With `everything` hidden files as well, folders (with a slash at the end), and as OSErrors the links that lead
    nowhere or to a folder around them.
    """
    found, above = {}, {str(folder): {os.path.realpath(folder)}}

    def stop(error: OSError) -> None:  # os.walk alone would pass over a folder that it may not read
        if not _hidden(os.path.relpath(error.filename, folder)):
            raise DataError(f"{error.filename}: {error.strerror}; make it readable, or remove it.")

    for place, folders, files in os.walk(folder, followlinks=True, onerror=stop):
        inside = (Path(place).relative_to(folder).as_posix() + "/").removeprefix("./")
        kept = []
        for name in sorted(n for n in folders if everything or not _hidden(n)):
            path = os.path.join(place, name)
            if (real := os.path.realpath(path)) in above[place]:
                found[inside + name] = OSError(errno.ELOOP, "a link to a folder around it")
                continue
            above[path] = above[place] | {real}
            found[f"{inside}{name}/"] = path
            kept.append(name)
        folders[:] = kept
        for name in sorted(n for n in files if everything or not _hidden(n)):
            found[inside + name] = _handle(os.path.join(place, name))
    return found if everything else {n: p for n, p in found.items() if n[-1] != "/" and isinstance(p, str)}


def _handle(path: str) -> str | OSError:
    if os.path.islink(path) and not os.path.exists(path):
        return OSError(errno.ENOENT, f"a link to {os.readlink(path)}, which leads nowhere")
    return path


def _content(path: str) -> bytes:
    if not os.path.isfile(path):
        raise OSError(errno.EINVAL, "not a regular file")  # a pipe would be waited for
    return Path(path).read_bytes()


# --- Archives ---


def _zip_members(archive: zipfile.ZipFile, path: Path) -> dict:
    members = {info.filename: info for info in archive.infolist()}
    if any(info.flag_bits & 1 for info in members.values()):
        raise DataError(
            f"{path}: encrypted; unpack it with its password, and set data_root to the folder that comes out."
        )
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    if any(info.compress_type not in known for info in members.values()):
        raise DataError(f"{path}: compressed in a way that is not read; unpack it, and set data_root to the folder.")
    soft = {name: info for name, info in members.items() if stat.S_ISLNK(info.external_attr >> 16)}
    targets = {
        name: posixpath.join(posixpath.dirname(name), archive.read(info).decode(errors="surrogateescape"))
        for name, info in soft.items()
    }
    return followed({name: info for name, info in members.items() if name not in soft}, targets)


def _tar_members(archive: tarfile.TarFile) -> dict:
    members, targets = {}, {}
    for member in _damage(archive.getmembers):
        if member.issym():
            targets[member.name] = posixpath.join(posixpath.dirname(member.name), member.linkname)
        elif member.islnk():
            targets[member.name] = member.linkname
        elif member.isfile() or member.isdir():
            members[member.name + "/" * member.isdir()] = member
    found = followed(members, targets)
    if not found:  # zeros alone, as at the start of a disk image, are an empty tar
        raise tarfile.ReadError("it holds no files")
    if targets:  # in the order of storage, for a compressed tar is read again from its start for each step back
        found = dict(sorted(found.items(), key=lambda item: getattr(item[1], "offset_data", 0)))
    return found


def _damage(read: Callable):
    """What `read` gives; the OSErrors of a decompressor mean that the archive is damaged."""
    try:
        return read()
    except OSError as error:
        raise tarfile.ReadError(str(error)) from error


def followed(members: dict, targets: dict[str, str]) -> dict:
    """The members of an archive, and under each link's name what it points to: a file, or all files of a folder.

    Parameters
    ----------
    targets : the links, each with the path inside the archive that it points to
    """
    if not targets:
        return members
    files = {posixpath.normpath(name): member for name, member in members.items() if not name.endswith("/")}
    links = {posixpath.normpath(name): posixpath.normpath(target) for name, target in targets.items()}
    children = defaultdict(set)
    for path in (*files, *links):
        while (parent := posixpath.dirname(path)) != path:
            children[parent or "."].add(posixpath.basename(path))
            path = parent

    def below(name: str, path: str, above: set[str]) -> Iterator[tuple]:
        real = _resolved(path, links)
        if real in files:
            yield name, files[real]
        elif real in above:
            yield name, OSError(errno.ELOOP, "a link to a folder around it")
        elif real in children:
            for child in sorted(children[real]):
                yield from below(f"{name}/{child}", posixpath.normpath(f"{real}/{child}"), above | {real})
        else:
            yield name, OSError(errno.ENOENT, f"a link to {links.get(path, path)}, which is not in the archive")

    around = {name: {".", *map(str, PurePosixPath(name).parents)} for name in links}
    return members | {path: handle for name in links for path, handle in below(name, name, around[name])}


def _resolved(path: str, links: dict[str, str]) -> str:
    """The path without links, as far as they lead; links that lead to each other end somewhere among them."""
    for _ in range(40):
        parents = [path, *map(str, PurePosixPath(path).parents)]
        if not (link := next((parent for parent in reversed(parents) if parent in links), None)):
            break
        path = posixpath.normpath(links[link] + path[len(link) :])
    return path
