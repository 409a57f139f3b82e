"""Files that are there whole or not at all, whatever is killed, and on the disk before they have their name."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write(file: Path, content: bytes | memoryview) -> None:
    """Write a file, and the folders above it, so that it is there whole or not at all."""
    with whole(file) as aside:
        aside.write_bytes(content)


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A path to write a file to; when the block ends it is synced and renamed, and if the block fails, removed."""
    aside = file.with_name(f"{file.name}.tmp{os.getpid()}")
    make(file.parent)
    try:
        yield aside
        sync(aside)
        aside.replace(file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)


def sync(file: Path) -> None:
    """Wait until a file's content is on the disk."""
    with file.open("r+b") as stream:
        os.fsync(stream.fileno())


def sync_folder(directory: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "posix":  # elsewhere a folder cannot be opened to be synced
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make(directory: Path) -> None:
    """Make a folder and those above it, each synced into its own."""
    if not directory.is_dir():
        make(directory.parent)
        directory.mkdir(exist_ok=True)
        sync_folder(directory.parent)


def read_json(file: Path) -> dict:
    """The content of a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def json_bytes(content: dict) -> bytes:
    """A mapping as a JSON file for people: indented, in the order of its keys."""
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
