"""What is known of a data set's images: planted copies are counted, records are found, made again, and told."""

import json
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from trees import by_class, folder, picture
from typer.testing import CliRunner

from lwnb import cli
from lwnb.base.places import CHECKOUT
from lwnb.data import census, sets
from lwnb.plan import paramfiles
from lwnb.plan.run import Source

PAGES = ("digits", "cifar10", "cifar100", "tiny-imagenet")


def planted() -> dict[str, bytes]:
    """Six images a class and split, and nine more: see `COUNTED`."""
    tree = by_class("train/", "test/")
    copy = tree["train/cat/0.png"]
    tree |= {"test/cat/a.png": copy, "test/cat/b.png": copy}  # two test images in training, one of them a repeat
    tree |= {
        "train/dog/a.png": tree["train/cat/1.png"],
        "train/dog/b.png": tree["train/cat/1.png"],
    }  # two labels, two repeats
    tree |= {"train/dog/c.png": tree["train/dog/0.png"]}  # a repeat
    tree |= {"test/dog/d.png": tree["test/cat/1.png"]}  # two labels, a repeat
    tree |= {"test/dog/e.png": tree["train/cat/2.png"]}  # two labels, a test image in training
    return tree | {"train/cat/bad.png": b"", "test/dog/bad.png": b""}


COUNTED = {
    "classes": ["cat", "dog"],
    "train": [6, 9],
    "test": [8, 8],
    "across": 3,
    "labels": 3,
    "within": [3, 2],
    "skipped": 2,
    "image_size": 8,
}


@pytest.fixture
def where(house):
    return Source(dataset="folder", data_root=str(folder(house / "pictures", planted())), bad_images="skip")


def test_planted_copies_are_counted(where):
    record = census.find(sets.load(where, 8).digest)
    assert {name: record[name] for name in COUNTED} == COUNTED


def test_the_sentences_hold_every_number_and_the_class_names(where):
    classes, copies, skipped, *notes = census.sentences(sets.load(where, 8).digest)
    assert "cat: 6 + 8" in classes and "dog: 9 + 8" in classes
    assert [word for word in copies.replace(".", "").replace(";", "").split() if word.isdigit()] == [
        *("3", "16"),
        *("3", "15"),
        *("2", "16"),
        "3",
    ]
    assert skipped.startswith("2 ")
    (note,) = notes
    assert [what for what in ("test/dog/bad.png (empty)", "train/cat/bad.png (empty)") if what not in note] == []


def test_the_pool_is_counted_not_what_lies_around_it(house):
    found = sets.load(Source(dataset="digits", pool_train=100, pool_test=50))
    record = census.find(found.digest)
    assert (sum(record["train"]), sum(record["test"])) == (100, 50)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"classes": []}', None])
def test_a_damaged_record_is_made_again(where, house, content):
    digest = sets.load(where, 8).digest
    (file,) = (house / "runs" / "images").iterdir()
    whole = file.read_bytes()
    file.unlink() if content is None else file.write_text(content)
    assert census.sentences(digest) == []
    sets.load(where, 8)
    assert file.read_bytes() == whole


def test_a_record_follows_what_was_left_out(where, house):
    first = sets.load(where, 8)
    (house / "pictures/train/cat/bad.png").unlink()
    assert sets.load(where, 8).digest == first.digest
    assert census.find(first.digest)["skipped"] == 1


def _loaded(home: str, where: Source) -> str:
    os.environ["LWNB_HOME"] = home
    return sets.load(where, 8).digest


def test_processes_at_once_make_one_record(where, house):
    with ProcessPoolExecutor(2) as pool:
        digests = set(pool.map(_loaded, [str(house)] * 4, [where] * 4))
    assert [file.stem for file in (house / "runs" / "images").iterdir()] == list(digests)


def test_this_machines_record_goes_before_the_published_one(where, house):
    digest = sets.load(where, 8).digest
    census.publish([digest, "0" * 64])
    copy = house / "results" / "images" / f"{digest}.json"
    assert [file.name for file in copy.parent.iterdir()] == [copy.name]
    copy.write_text(json.dumps(json.loads(copy.read_text()) | {"across": 77}))
    assert census.find(digest)["across"] == 3
    (house / "runs" / "images" / copy.name).unlink()
    assert census.find(digest)["across"] == 77
    assert census.find("0" * 64) is None
    assert census.sentences("0" * 64) == []


def test_many_classes_are_named_up_to_twenty_and_then_counted(house):
    record = COUNTED | {
        "dataset": "folder",
        "notes": ["A note."],
        "skipped": 0,
        "within": [0, 0],
        "across": 0,
        "labels": 0,
    }
    record |= {"classes": [f"c{n}" for n in range(45)], "train": [1000] * 45, "test": [20] * 45}
    census.save("a", record)
    equal, _, note = census.sentences("a")
    assert all(text in equal for text in ("1,000 ", " 20 ", " 45 ", "c19 ", "25 more")) and "c20" not in equal
    assert note == "A note."
    census.save("a", record | {"train": [1000] * 44 + [7]})
    assert "c19: 1,000 + 20" in census.sentences("a")[0] and "25 more" in census.sentences("a")[0]


def test_names_are_harmless_on_a_page_and_printable(house):
    record = COUNTED | {"dataset": "folder", "notes": [], "classes": ["<b>&", os.fsdecode(b"\xe9t\xe9")]}
    census.save("a", record)
    assert "&lt;b&gt;&amp;" in census.listed("a")
    assert "<b>" not in census.listed("a")
    census.listed("a").encode()
    assert census.listed("b") == ""


def test_fetch_tells_all_of_it(house):
    folder(house / "pictures", planted())
    page = house / "mine.yaml"
    text = (CHECKOUT / "params" / "folder.yaml").read_text()
    page.write_text(text.replace("data/my-images", str(house / "pictures")).replace("refuse ", "skip "))
    changes = [x for p in ("digest=''", "pool_train=0", "pool_test=0", "image_size=8") for x in ("-p", p)]
    done = CliRunner().invoke(cli.app, ["fetch", str(page), *changes])
    assert done.exit_code == 0, done.output
    (digest,) = [file.stem for file in (house / "runs" / "images").iterdir()]
    assert all(sentence in done.output for sentence in census.sentences(digest))


# --- Published ---


@pytest.mark.parametrize("name", PAGES)
def test_a_published_page_has_its_record(name, house):
    (house / "results").symlink_to(CHECKOUT / "results")
    p = paramfiles.read(paramfiles.file_of(name))
    record = census.find(p.digest)
    assert record["dataset"] == p.dataset
    assert (sum(record["train"]), sum(record["test"])) == (p.pool_train, p.pool_test)
    assert len(record["classes"]) == len(set(record["classes"])) == len(record["train"]) == p.num_classes
    assert np.ptp(record["train"]) == np.ptp(record["test"]) == 0 or name == "digits"


def test_the_published_record_of_digits_is_what_is_counted_here(house):
    digest = sets.load(Source(dataset="digits")).digest
    name = f"images/{digest}.json"
    assert (house / "runs" / name).read_bytes() == (CHECKOUT / "results" / name).read_bytes()


def test_a_picture_of_its_own_is_no_copy(house):
    tree = by_class("train/", "test/") | {"test/cat/9.png": picture(4711)}
    found = sets.load(Source(dataset="folder", data_root=str(folder(house / "pictures", tree))), 8)
    record = census.find(found.digest)
    assert [record["across"], record["labels"], *record["within"]] == [0, 0, 0, 0]
    assert len(census.sentences(found.digest)) == 2
