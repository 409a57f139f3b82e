"""The layouts of the data sets: small ones made here, the truth is what was put in; and digits against scikit-learn."""

import hashlib
import io
import os

import numpy as np
import pytest
from PIL import Image
from trees import CIFAR10, by_class, cifar10, cifar10_files, encoded, folder, picture, tar, tiny_imagenet, zipped

from lwnb.base.errors import DataError
from lwnb.data import readers
from lwnb.plan.run import Source


def read(place, dataset="folder", image_size=8, **values):
    return readers.contents(Source(dataset=dataset, **values), place, image_size)


def rows(part) -> set:
    """A split as a set of (label, identity, content hash)."""
    both = zip(part.labels.tolist(), part.ids, part.contents, strict=True)
    return {(label, identity.tobytes(), content.tobytes()) for label, identity, content in both}


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# --- digits ---


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    truth = load_digits()
    contents = read(None, "digits")
    counts = [np.bincount(part.labels) for part in (contents.train, contents.test)]
    assert (counts[0] + counts[1] == np.bincount(truth.target)).all()
    assert len(contents.test.labels) == 359, "a fifth of 1,797"
    assert np.abs(counts[1] - 0.2 * np.bincount(truth.target)).max() <= 1
    grey = {0: 0, 1: 16, 4: 64, 8: 128, 12: 191, 15: 239, 16: 255}  # x * 255 / 16, rounded
    known = {
        identity.tobytes(): image
        for part in (contents.train, contents.test)
        for identity, image in zip(part.ids, part.images, strict=True)
    }
    for number in (0, 1000, 1796):
        values = np.round(truth.images[number] * 15.9375).astype(np.uint8)
        image = known[sha(np.stack([values] * 3, axis=-1).tobytes())]
        for value, expected in grey.items():
            assert (image[:, truth.images[number] == value] == expected).all()


# --- CIFAR ---


def test_cifar_by_class_is_known_by_its_pixels(tmp_path):
    images = cifar10(train=2, test=1)
    contents = read(tar(tmp_path / "cifar10.tar", cifar10_files(images), "cifar10/"), "cifar10")
    assert contents.classes == CIFAR10
    for part, (pixels, labels) in ((contents.train, images["train"]), (contents.test, images["test"])):
        truth = {
            (label, sha(image.tobytes()), sha(image.tobytes())) for image, label in zip(pixels, labels, strict=True)
        }
        assert rows(part) == truth
        assert part.images.transpose(0, 2, 3, 1).tobytes() == b"".join(
            next(image.tobytes() for image in pixels if sha(image.tobytes()) == identity.tobytes())
            for identity in part.ids
        )


def test_another_number_of_classes_or_another_size_is_not_cifar(tmp_path):
    with pytest.raises(DataError, match="cifar10 has 10 classes, found 2"):
        read(folder(tmp_path / "a", by_class("train/", "test/", size=32)), "cifar10")
    with pytest.raises(DataError, match="8 x 8 pixels, expected 32 x 32"):
        read(folder(tmp_path / "b", by_class("train/", "test/", classes=CIFAR10)), "cifar10")


def test_a_damaged_published_archive_is_refused(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"no archive")
    folder(tmp_path / "cifar-10-batches-py", {"data_batch_1": b"damaged"})
    for name in ("cifar-10-python.tar.gz", "cifar-10-batches-py"):
        with pytest.raises(DataError, match=f"{name}: not the published cifar10, or damaged"):
            read(tmp_path / name, "cifar10")


# --- Tiny ImageNet ---


def test_tiny_imagenet_in_its_original_layout(tmp_path):
    tree = tiny_imagenet()
    contents = read(zipped(tmp_path / "tiny-imagenet-200.zip", tree, "tiny-imagenet-200/"), "tiny-imagenet")
    assert contents.names == ("n01", "n02", "n03")
    assert contents.classes == ("crane (n01)", "crane (n02)", "goldfish")
    labels = {"n01": 0, "n02": 1, "n03": 2}
    train = {path: labels[path.split("/")[1]] for path in tree if path.startswith("train") and path.endswith("JPEG")}
    test = {"val/images/val_0.JPEG": 1, "val/images/val_1.JPEG": 0, "val/images/val_2.JPEG": 2}
    for part, truth in ((contents.train, train), (contents.test, test)):
        assert rows(part) == {(label, sha(path.encode()), sha(tree[path])) for path, label in truth.items()}
    (grey,) = contents.train.images[
        (contents.train.ids == np.frombuffer(sha(b"train/n03/images/n03_0.JPEG"), np.uint8)).all(1)
    ]
    with Image.open(io.BytesIO(tree["train/n03/images/n03_0.JPEG"])) as file:
        assert file.mode == "L"
        assert (grey == np.asarray(file)).all(), "grey: three equal channels"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words.txt": None}, "words.txt is missing"),
        ({"val/val_annotations.txt": None}, "val/val_annotations.txt is missing"),
        ({"val/images/val_1.JPEG": None}, "does not fit the files"),
        ({"val/images/val_9.JPEG": b"x"}, "does not fit the files"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn77\nval_1.JPEG\tn01\nval_2.JPEG\tn03\n"}, "does not fit the files"),
        ({"train/n01/images/n01_1.JPEG": picture(1, 8)}, r"train/n01/images/n01_1.JPEG \(8 x 8 pixels, expected 64"),
    ],
)
def test_another_layout_is_not_tiny_imagenet(tmp_path, change, message):
    tree = {path: content for path, content in (tiny_imagenet() | change).items() if content is not None}
    with pytest.raises(DataError, match=message):
        read(folder(tmp_path, tree), "tiny-imagenet")


# --- folder ---


def test_a_folder_with_train_and_test(tmp_path):
    tree = by_class("train/", "test/", classes=("dog", "cat", "Ape"))
    tree |= {"train/dog/more/deep.png": picture(77), "README.md": b"text", "labels.csv": b"text"}
    contents = read(folder(tmp_path, tree))
    assert contents.classes == ("Ape", "cat", "dog")
    for split in ("train", "test"):
        truth = {path: data for path, data in tree.items() if path.startswith(split)}
        assert rows(getattr(contents, split)) == {
            (contents.classes.index(path.split("/")[1]), sha(path.encode()), sha(data)) for path, data in truth.items()
        }


def test_one_folder_of_classes_is_split(tmp_path):
    tree = by_class("", each=15)
    contents = read(folder(tmp_path, tree))
    assert np.bincount(contents.train.labels).tolist() == [12, 12]
    assert np.bincount(contents.test.labels).tolist() == [3, 3]
    assert rows(contents.train) | rows(contents.test) == {
        (int(path.startswith("dog")), sha(path.encode()), sha(data)) for path, data in tree.items()
    }


def test_mixed_sizes_and_formats_come_to_one_size(tmp_path):
    tree = by_class("train/", "test/", each=2)
    tree |= {"train/cat/a.jpg": picture(1, 40, "JPEG"), "train/cat/b.webp": picture(2, 5, "WEBP")}
    tree |= {"train/dog/c.bmp": encoded(Image.new("RGB", (50, 9)), "BMP"), "test/dog/d.gif": picture(3, 20, "GIF", "L")}
    contents = read(folder(tmp_path, tree), image_size=16)
    assert contents.train.images.shape == (7, 3, 16, 16)
    assert contents.test.images.shape == (5, 3, 16, 16)


def test_bad_files_are_refused_by_name(tmp_path):
    bad = {f"train/cat/bad{number:02}.png": b"" for number in range(24)} | {"test/dog/cut.png": picture(1, 64)[:999]}
    with pytest.raises(DataError) as caught:
        read(folder(tmp_path, by_class("train/", "test/") | bad))
    said = str(caught.value)
    assert said.startswith("25 of 49 files cannot be read as images: test/dog/cut.png (")
    assert "train/cat/bad18.png (empty) and 5 more. " in said
    assert "train/cat/bad19.png" not in said
    assert "bad_images to 'skip'" in said


def test_bad_files_are_skipped_when_asked(tmp_path):
    good = by_class("train/", "test/")
    bad = {"train/cat/notes.png": b"text", "test/dog/empty.png": b""}
    contents = read(folder(tmp_path, good | bad), bad_images="skip")
    assert contents.skipped == ("test/dog/empty.png", "train/cat/notes.png")
    assert len(contents.train.labels) == len(contents.test.labels) == 12
    assert rows(contents.train) == rows(read(folder(tmp_path / "good", good)).train)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "found 0: no images at all"),
        (by_class("", classes=("cat",)), "found 1: cat"),
        (by_class("train/", "test/", classes=("cat",)), "found 1: cat"),
        (by_class("train/", "test/") | {"test/owl/1.png": picture(1)}, r"owl \(testing\)"),
        (by_class("train/", "test/") | {"train/owl/1.png": picture(1)}, r"owl \(training\)"),
        (by_class("", each=4), r"at least 5 .* too few: cat \(4\), dog \(4\)"),
        (by_class("") | {"stray.JPG": picture(1)}, "images outside of any class's folder: stray.JPG"),
        (by_class("train/", "test/") | {"train/stray.png": picture(1)}, "any class's folder: train/stray.png"),
    ],
)
def test_impossible_folders(tmp_path, tree, message):
    with pytest.raises(DataError, match=message):
        read(folder(tmp_path, tree))


def test_too_few_that_remain_are_told_with_what_was_skipped(tmp_path):
    tree = by_class("", classes=("cat", "owl")) | {f"dog/{n}.heic": b"\0\0\0\x18ftypheic" + bytes(99) for n in range(9)}
    with pytest.raises(DataError) as caught:
        read(folder(tmp_path, tree), bad_images="skip")
    said = str(caught.value)
    assert [what for what in ("dog (0)", "dog/0.heic", "HEIC", "JPEG", "6 more") if what not in said] == []
    with pytest.raises(DataError, match=r"cat \(0\), dog \(0\).*cat/0.png \(empty\)"):
        read(folder(tmp_path / "none", dict.fromkeys(by_class(""), b"")), bad_images="skip")


def test_a_stray_image_that_looks_like_a_class_is_named(tmp_path):
    tree = {f"dataset/{name}": data for name, data in by_class("").items()} | {"docs/preview.png": picture(99)}
    with pytest.raises(DataError, match=r"docs \(1: docs/preview.png\)"):
        read(folder(tmp_path, tree))


def test_the_first_files_that_were_skipped_are_told_with_reasons(tmp_path):
    tree = by_class("train/", "test/") | {f"train/cat/bad{n}.png": b"" for n in range(5)}
    contents = read(folder(tmp_path, tree), bad_images="skip")
    (note,) = contents.notes
    assert [what for what in ("bad0.png (empty)", "bad2.png (empty)", "2 more") if what not in note] == []


def test_pictures_under_two_classes_count_for_both_and_are_told(tmp_path):
    tree = by_class("", classes=("ape", "bee", "cow"), each=20)
    tree |= {f"bee/copy of {n}.png": tree[f"cow/{n}.png"] for n in range(20)}
    contents = read(folder(tmp_path, tree))
    assert (np.bincount(contents.train.labels) + np.bincount(contents.test.labels)).tolist() == [20, 40, 20]
    assert np.bincount(contents.test.labels, minlength=3).min() > 0
    (note,) = contents.notes
    assert [what for what in ("20 of 20", "cow", "bee") if what not in note] == []
    few = {name: data for name, data in tree.items() if name not in [f"cow/{n}.png" for n in range(4, 20)]}
    with pytest.raises(DataError, match=r"cow \(4\)") as caught:
        read(folder(tmp_path / "few", few))
    assert "4 of 4" in str(caught.value)


def test_a_class_that_copies_leave_without_test_images_is_told_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_divided", lambda whole, groups: (whole, whole.take(whole.labels != 1)))
    tree = by_class("", classes=("bee", "cow"))
    with pytest.raises(DataError, match=r"cow \(0\)") as caught:
        read(folder(tmp_path, tree | {f"bee/copy of {n}.png": tree[f"cow/{n}.png"] for n in range(6)}))
    assert [what for what in ("testing", "6 of 6", "bee") if what not in str(caught.value)] == []


def test_sidecars_links_and_hidden_images_are_no_bad_images(tmp_path):
    tree = by_class("train/", "test/")
    others = {f"train/cat/0{ending}": b"x" for ending in (".txt", ".json", ".xmp", ".MOV")} | {"train/dog/list": b"x"}
    others |= {"test/cat/@eaDir/0.png": picture(1), "train/dog/note.odd": b"x"}
    contents = read(folder(tmp_path / "a", tree | others))
    assert rows(contents.train) == rows(read(folder(tmp_path / "b", tree)).train)
    assert contents.skipped == ()
    said = " ".join(contents.notes)
    assert [what for what in ("@eaDir", ".txt", ".json", ".xmp", ".mov", ".odd") if what not in said] == []


def test_images_with_odd_endings_are_read(tmp_path):
    tree = by_class("train/", "test/")
    odd = {"train/cat/a": picture(50), "train/dog/b.jpg_large": picture(51), "train/dog/c.orig": picture(52)}
    contents = read(folder(tmp_path, tree | odd))
    assert {sha(path.encode()) for path in odd} < {row[1] for row in rows(contents.train)}
    assert contents.notes == ()


def test_links_in_a_tar_are_images(tmp_path):
    tree = by_class("train/", "test/")
    soft = {"train/cat/link.png": "../dog/0.png", "train/dog/bad.png": "/nowhere.png"}
    place = tar(tmp_path / "set.tar", tree, hard={"test/dog/link.png": "train/cat/0.png"}, soft=soft)
    with pytest.raises(DataError, match="1 of 27 .*train/dog/bad.png .*/nowhere.png"):
        read(place)
    contents = read(place, bad_images="skip")
    assert contents.skipped == ("train/dog/bad.png",)
    assert (0, sha(b"train/cat/link.png"), sha(tree["train/dog/0.png"])) in rows(contents.train)
    assert (1, sha(b"test/dog/link.png"), sha(tree["train/cat/0.png"])) in rows(contents.test)


def test_the_notes_of_the_images_are_told(tmp_path):
    dark = encoded(Image.fromarray(np.full((8, 8), 900, np.uint16)), "PNG")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    animated = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    tree = by_class("train/", "test/") | {"train/cat/a.png": dark, "test/dog/b.png": dark, "test/cat/c.gif": animated}
    several, black = read(folder(tmp_path, tree)).notes
    assert "1" in several
    assert "2 of 2" in black


def test_classes_in_any_script_can_be_told(tmp_path):
    """Latin-1 bytes, a line break, a $: kept as they are for the digest, shown so that they can be printed."""
    raw = ["a\nb", "$5", os.fsdecode(b"caf\xe9"), "日本"]
    contents = read(tar(tmp_path / "set.tar", by_class("", classes=tuple(raw))))
    assert contents.names == tuple(sorted(raw))
    assert set(contents.classes) == {r"a\nb", "$5", "café", "日本"}
    with pytest.raises(DataError) as caught:
        read(tar(tmp_path / "bad.tar", by_class("", classes=tuple(raw)) | {f"{raw[2]}/x.png": b""}))
    str(caught.value).encode()
    skipped = read(tmp_path / "bad.tar", bad_images="skip").skipped
    assert skipped == ("café/x.png",)


def test_the_paths_on_disk_are_the_identities_whatever_the_splits_are_called(tmp_path):
    tree = by_class("Training/", "Test_Set/")
    contents = read(folder(tmp_path, tree))
    assert {row[1] for row in rows(contents.train)} == {sha(path.encode()) for path in tree if path[1] == "r"}


def test_a_folder_needs_a_size(tmp_path):
    with pytest.raises(DataError, match="image_size"):
        read(folder(tmp_path, by_class("")), image_size=None)
