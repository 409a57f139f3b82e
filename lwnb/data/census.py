"""What is known of a data set's images, by its digest: images a class, copies, files left out.
In `runs/` and `results/`."""

import html
import json
from collections.abc import Iterable

from lwnb.base import disk
from lwnb.base.places import home, shelves

FIELDS = ("dataset", "image_size", "classes", "train", "test", "across", "labels", "within", "skipped", "notes")
"""What a record holds. `train` and `test`: the images of each of the `classes`. By identical pixels at `image_size`:
`across`, test images that stand in training; `labels`, pictures that stand under more than one class; `within`,
training and test images that repeat another one of their split. `skipped`: how many files could not be read. `notes`:
sentences on what else was not taken."""

SHOWN = 20
"""Most classes that are named one by one."""


def save(digest: str, record: dict) -> None:
    """Keep a record of `FIELDS` under `runs/images/`."""
    file = home() / "runs" / "images" / f"{digest}.json"
    disk.write(file, (json.dumps({name: record[name] for name in FIELDS}) + "\n").encode())


def find(digest: str) -> dict | None:
    """The record of a data set, from the first of `lwnb.base.places.shelves` that has it;
    a damaged one counts as none."""
    for shelf in shelves():
        try:
            record = json.loads((shelf / "images" / f"{digest}.json").read_bytes())
            return {name: record[name] for name in FIELDS}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def publish(digests: Iterable[str]) -> None:
    """Copy the records of these data sets from `runs/` to `results/`."""
    for digest in digests:
        file = home() / "runs" / "images" / f"{digest}.json"
        if file.exists():
            disk.write(home() / "results" / "images" / file.name, file.read_bytes())


def sentences(digest: str) -> list[str]:
    """What a person should know of a data set's images, numbers first; nothing where there is no record."""
    record = find(digest)
    if not record:
        return []
    found = [_classes(record), _copies(record)]
    if record["skipped"]:
        found.append(f"{record['skipped']:,} files could not be read as images and were left out.")
    found += record["notes"]
    return [text.encode(errors="backslashreplace").decode() for text in found]  # names may hold bytes that are no text


def listed(digest: str) -> str:
    """The sentences as an HTML list, for a notebook."""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in sentences(digest))
    return f'<ul class="tex2jax_ignore mathjax_ignore">{items}</ul>' if items else ""


def _copies(record: dict) -> str:
    if not any([record["across"], record["labels"], *record["within"]]):
        return "No two images have identical pixels."
    train, test = sum(record["train"]), sum(record["test"])
    return (
        f"Identical pixels: {record['across']:,} of {test:,} test images also in training; "
        f"{record['within'][0]:,} of {train:,} training and {record['within'][1]:,} of {test:,} test images "
        "repeat another one of their split; "
        f"pictures under more than one class: {record['labels']:,}."
    )


def _classes(record: dict) -> str:
    names, counts = record["classes"][:SHOWN], list(zip(record["train"], record["test"], strict=True))
    rest = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    if len(set(counts)) == 1:
        (train, test), *_ = counts
        return (
            f"{train:,} training and {test:,} test images in each of {len(counts)} classes: {', '.join(names)}{rest}."
        )
    each = [f"{name}: {train:,} + {test:,}" for name, (train, test) in zip(names, counts, strict=False)]
    return f"Training and test images of {len(counts)} classes: {'; '.join(each)}{rest}."
