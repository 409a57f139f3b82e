"""How folders are understood, from paths alone: which are splits, which are classes, what is refused."""

import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from trees import by_class, folder

from lwnb.base.errors import DataError
from lwnb.base.places import CHECKOUT
from lwnb.data import layout
from lwnb.data.files import Files

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def understood(paths, folders=()) -> layout.Layout:
    return layout.read(Files(tuple(paths), lambda name: b"", tuple(folders)), Path("set"))


def counts(found: layout.Layout) -> dict[str, int]:
    return {split: len(entries) for split, entries in found.entries.items()}


def flat(*tops: str, each: int = 12, name: str = "{}.png") -> list[str]:
    return [f"{top}/{name.format(number)}" for top in tops for number in range(each)]


PAIRS = [
    ("Train", "Test"),
    ("training", "testing"),
    ("train_set", "test_set"),
    ("trn", "tst"),
    ("TRAIN", "test images"),
]


@pytest.mark.parametrize(("train", "test"), [*PAIRS, ("seg_train", "seg_test")])
def test_known_pairs_are_splits(train, test):
    found = understood(by_class(f"{train}/", f"{test}/"))
    assert counts(found) == {"train": 12, "test": 12}
    assert {path.split("/")[0] for path, _ in found.entries["train"]} == {train}
    assert {name for entries in found.entries.values() for _, name in entries} == {"cat", "dog"}
    assert found.notes == ()


@pytest.mark.parametrize("val", ["val", "Valid", "validation", "dev"])
def test_of_three_splits_two_are_for_training(val):
    found = understood([*by_class("train/", "test/"), *by_class(f"{val}/", each=3)])
    assert counts(found) == {"train": 18, "test": 12}
    (note,) = found.notes
    assert [what for what in ("train/ (12", f"{val}/ (6") if what not in note] == []


def test_a_validation_split_alone_is_the_test_split():
    found = understood([*by_class("train/"), *by_class("val/", each=3)])
    assert counts(found) == {"train": 12, "test": 6}
    (note,) = found.notes
    assert "val/ (6" in note


@pytest.mark.parametrize("test", ["test/{}.png", "test/unknown/{}.png", "Test_Set/test/{}.png"])
def test_images_without_labels_are_left_out(test):
    unlabelled = [test.format(number) for number in range(5)]
    top = test.split("/")[0]
    found = understood([*by_class("train/"), *unlabelled])
    assert counts(found) == {"all": 12}
    assert f"{top}/ (5" in found.notes[0]
    assert "train/ (12" in found.notes[1]
    found = understood([*by_class("train/", "val/"), *unlabelled])
    assert counts(found) == {"train": 12, "test": 12}
    assert f"{top}/ (5" in found.notes[0]


def test_train_alone_is_split():
    found = understood(by_class("train/"))
    assert counts(found) == {"all": 12}
    assert {name for _, name in found.entries["all"]} == {"cat", "dog"}
    (note,) = found.notes
    assert "train/ (12" in note


@pytest.mark.parametrize("wrapper", ["train/train/ test/test/", "train/images/ test/images/", "train/ test/data/"])
def test_a_folder_around_the_classes_of_a_split_is_passed_over(wrapper):
    found = understood(by_class(*wrapper.split()))
    assert counts(found) == {"train": 12, "test": 12}
    assert {name for entries in found.entries.values() for _, name in entries} == {"cat", "dog"}


def test_a_class_may_be_called_as_a_split():
    found = understood(flat("train", "bus", "car"))
    assert {name for _, name in found.entries["all"]} == {"train", "bus", "car"}
    (note,) = found.notes
    assert "train/" in note
    found = understood(flat("valid", "invalid"))
    assert {name for _, name in found.entries["all"]} == {"valid", "invalid"}


def test_folders_below_a_class_belong_to_it():
    paths = [f"{name}/{name}{part}/more/{n}.png" for name in ("cat", "dog") for part in "xy" for n in range(3)]
    found = understood([*paths, "cat/direct.png"])
    assert counts(found) == {"all": 13}
    assert {name for _, name in found.entries["all"]} == {"cat", "dog"}
    tiny = understood([f"{name}/images/{n}.png" for name in ("cat", "dog") for n in range(3)])
    assert {name for _, name in tiny.entries["all"]} == {"cat", "dog"}


@pytest.mark.parametrize(
    ("paths", "seen"),
    [
        (by_class("fold_0/", "fold_1/", "fold_2/"), ["fold_0", "fold_2", "cat", "dog"]),
        (flat("images", "masks"), ["images", "masks"]),
        ([*flat("train"), *flat("train_masks", name="{}_mask.png")], ["train_masks"]),
        ([*flat("photos"), *flat("truth_seg", name="{}_seg.png")], ["photos", "truth_seg"]),
        (flat("Images", "SegmentationClass", "SegmentationObject"), ["Images", "SegmentationClass"]),
        (flat("input", "target"), ["input", "target"]),
        (flat("inputs", "Outputs"), ["inputs", "Outputs"]),
        (flat("rgb", "depth"), ["rgb", "depth"]),
        (flat("x", "Y"), ["x", "Y"]),
        (flat("leftImg8bit", "gtFine"), ["leftImg8bit", "gtFine"]),
        ([*flat("photos", "tumour_masks"), "photos/one_more.png"], ["photos", "tumour_masks"]),
        (by_class("train/", "test/", classes=("images", "masks")), ["train/images/", "train/masks/"]),
        (by_class("data/train/", "data/test/", classes=("images", "masks")), ["data/train/images/"]),
        (by_class("train/", "test/", classes=("photos", "labels_png")), ["photos", "labels_png"]),
        (by_class("train/cat/", "train/dog/", "test/cat/", "test/dog/", classes=("img", "gt")), ["cat/img", "cat/gt"]),
        ([*flat("images"), *flat("masks", name="{}_mask.png")], ["images", "masks"]),
        ([*by_class("train/", "test/"), *by_class("extra/")], ["train", "test", "extra"]),
        ([*by_class(""), *by_class("test/")], ["test", "cat", "dog"]),
        (by_class("test/"), ["test"]),
        (by_class("val/", "test/"), ["test", "val"]),
        ([*by_class("train/", "test/"), "train/stray.png"], ["train/stray.png"]),
        ([*by_class("train/", "test/"), "test/stray.png"], ["test/stray.png"]),
        ([*by_class("train/", "val/"), "stray.png"], ["stray.png"]),
        ([*flat("train"), *flat("test")], ["train/0.png"]),
        ([*by_class("train/", "test/"), "test/owl/1.png"], ["owl"]),
        ([*by_class("train/", "test/", classes=("cat", "dog", "Owl")), "test/owl/1.png"], ["owl"]),
        ([*flat("images"), "labels.csv"], ["images", "labels.csv"]),
        (["1.png", "2.png", "labels.csv"], ["1.png", "labels.csv"]),
        (["flowers.zip", "README.md"], ["no images", "flowers.zip"]),
        (["data/0.parquet"], ["no images", "data/0.parquet"]),
        ([f"cat/{n}.CR2" for n in range(7)], ["no images", "7 .cr2", "JPEG"]),
        (["cat/1.psd", "dog/2.TGA", "dog/notes.txt"], ["no images", "1 .psd, 1 .tga", "JPEG"]),
        ([*flat("cat"), "dog/1.nef"], ["found 1: cat", "1 .nef", "dog/", "JPEG"]),
        (["1.png", "labels.xls"], ["labels.xls"]),
        (["1.png", "labels.ods"], ["labels.ods"]),
    ],
)
def test_what_is_refused_is_told_with_what_was_seen(paths, seen):
    with pytest.raises(DataError) as caught:
        understood(paths)
    assert [what for what in seen if what not in str(caught.value)] == []


@pytest.mark.parametrize("tops", [("happy", "sad"), ("with_mask", "mask"), ("y", "n"), ("gtx", "segway")])
def test_classes_may_use_the_same_names_for_their_images(tops):
    """One photograph of each person in each class, say."""
    people = [f"{top}/{person}.jpg" for top in tops for person in "abcdefghijklmnopqrst"]
    assert counts(understood(people)) == {"all": 40}


def test_x_and_y_among_other_letters_and_masks_with_other_names_are_classes():
    assert counts(understood(flat("v", "w", "x", "y", "z"))) == {"all": 60}
    assert counts(understood([*flat("faces"), *flat("face_masks", name="m{}.png")])) == {"all": 24}


def test_images_that_are_not_read_are_told_apart_from_other_files():
    unread, others = understood([*flat("cat", "dog"), "cat/1.dng", "dog/a.exr", "cat/1.xmp"]).notes
    assert [what for what in ("1 .dng", "1 .exr", "JPEG") if what not in unread] == []
    assert "1 .xmp" in others
    assert "JPEG" not in others + "".join(understood([*flat("cat", "dog"), "cat/1.xmp"]).notes)


def test_one_class_in_two_forms_of_unicode():
    found = understood([*by_class("train/", classes=(NFD, "dog")), *by_class("test/", classes=(NFC, "dog"))])
    assert {name for entries in found.entries.values() for _, name in entries} == {NFC, "dog"}
    assert f"train/{NFD}/0.png" in dict(found.entries["train"]), "the path stays"
    (note,) = found.notes
    assert NFC in note
    one = understood(by_class("", classes=(NFD, "dog")))
    assert {name for _, name in one.entries["all"]} == {NFD, "dog"}, "as before, where there is one form only"


def test_folders_without_images_are_named():
    found = understood([*by_class(""), "docs/about.txt"], ["cat/", "owl/", "owl/deep/"])
    assert [what for what in ("owl/", "docs/", "1 .txt") if what not in " ".join(found.notes)] == []
    found = understood(by_class("train/", "test/"), ["train/", "train/owl/", "test/cat/", "val/"])
    (note,) = found.notes
    assert note.endswith(": train/owl/, val/.")


def test_the_example_that_sorts_by_a_table_does(tmp_path):
    page = (CHECKOUT / "book" / "data.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    folder(tmp_path, {f"images/{n}.png": b"%d" % n for n in range(4)} | {"labels.csv": b"f,l\n0.png,cat\n3.png,dog\n"})
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True)
    found = {f.relative_to(tmp_path / "sorted").as_posix(): f.read_bytes() for f in tmp_path.glob("sorted/*/*")}
    assert found == {"cat/0.png": b"0", "dog/3.png": b"3"}


def test_many_files_are_understood_at_once():
    paths = [f"class{label}/{seed}.jpg" for label in range(300) for seed in range(200)]
    assert counts(understood(paths)) == {"all": 60_000}
