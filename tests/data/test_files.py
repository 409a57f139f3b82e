"""Folders, tars and zips of the same files; what is hidden in them, links, and files that are no such thing."""

import gzip
import os
from importlib import import_module
from pathlib import Path

import pytest
from trees import by_class, folder, named, picture, tar, zipped

from lwnb.base import errors
from lwnb.base.errors import DataError
from lwnb.data import files

TREE = {"train/cat/1.png": b"one", "train/dog/2.png": b"two", "test/cat/3.png": b"three", "words.txt": b"w"}
RUBBISH = {".DS_Store": b"x", "train/cat/._1.png": b"x", "__MACOSX/train/._1.png": b"x", "test/Thumbs.db": b"x"}

FORMS = {
    "folder": lambda place: folder(place / "set", TREE | RUBBISH),
    "folder in a folder": lambda place: folder(place / "outer" / "set", TREE | RUBBISH).parent,
    "tar": lambda place: tar(place / "set.tar", TREE | RUBBISH),
    "tar, each path from .": lambda place: tar(place / "set.tar", TREE | RUBBISH, "./set/"),
    "compressed tar": lambda place: tar(place / "set.tar.gz", RUBBISH | TREE, "set/"),
    "zip": lambda place: zipped(place / "set.zip", TREE | RUBBISH, "deep/set/"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_shows_the_same_files(tmp_path, form):
    with files.opened(FORMS[form](tmp_path)) as found:
        assert {name: found.read(name) for name in found.names} == TREE


def test_a_lone_train_folder_is_no_wrapper(tmp_path):
    with files.opened(folder(tmp_path, {"train/cat/1.png": b"1", "train/dog/1.png": b"2"})) as found:
        assert set(found.names) == {"train/cat/1.png", "train/dog/1.png"}


def test_links_to_folders_are_followed(tmp_path):
    elsewhere = folder(tmp_path / "elsewhere", {"1.png": b"one"})
    (folder(tmp_path / "set", {"dog/2.png": b"two"}) / "cat").symlink_to(elsewhere)
    with files.opened(tmp_path / "set") as found:
        assert found.names == ("cat/1.png", "dog/2.png")


@pytest.mark.parametrize("make", [tar, zipped])
def test_an_archive_cut_short_is_refused(tmp_path, make):
    tree = {f"cat/{seed}.png": picture(seed, 64) for seed in range(4)}
    whole = make(tmp_path / "set", tree)
    whole.write_bytes(whole.read_bytes()[:20_000])
    with pytest.raises(DataError, match="not a whole one"), files.opened(whole) as found:
        for name in found.names:
            found.read(name)


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 99])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "set.tar").write_bytes(content)
    with pytest.raises(DataError, match="set.tar: not a tar or zip"), files.opened(tmp_path / "set.tar"):
        pass


@pytest.mark.parametrize("compression", ["bz2", "lzma"])
@pytest.mark.parametrize("place", [0.05, 0.5, 0.95])
def test_a_compressed_archive_that_is_damaged_is_refused(tmp_path, compression, place):
    whole = tar(tmp_path / "set.tar", {f"cat/{seed}.png": picture(seed, 64) for seed in range(9)}).read_bytes()
    packed = bytearray(import_module(compression).compress(whole))
    packed[int(place * len(packed))] ^= 255
    (tmp_path / "damaged").write_bytes(packed)
    with pytest.raises(DataError, match="not a whole one"), files.opened(tmp_path / "damaged") as found:
        for name in found.names:
            found.read(name)


@pytest.mark.parametrize("beside", [{}, {"README": b"", "labels.csv": b"", "docs/about.txt": b""}])
def test_a_folder_around_all_images_is_left_out(tmp_path, beside):
    with files.opened(folder(tmp_path, {f"flowers/{name}": data for name, data in TREE.items()} | beside)) as found:
        assert set(found.names) == {*TREE, *(f"../{name}" for name in beside)}
        assert found.read("words.txt") == b"w"


@pytest.mark.parametrize("name", ["train", "Train", "training_set", "Test Images", "val"])
def test_a_folder_named_as_a_split_is_left_in(tmp_path, name):
    with files.opened(folder(tmp_path, {f"{name}/cat/1.png": b""})) as found:
        assert found.names == (f"{name}/cat/1.png",)


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("train", ["train", "Train", "TRAINING", "train_set", "trainset", "training-images", "images_train", "trn"]),
        ("val", ["val", "Valid", "validation", "dev", "val_data"]),
        ("test", ["test", "Testing", "test_set", "test images", "tst", "test1"]),
        (None, ["cat", "images", "fold_0", "trainer", "trains", "contest", "latest", "set", "steam train", "1"]),
    ],
)
def test_roles_of_folders(role, names):
    assert {name: files.role(name) for name in names} == dict.fromkeys(names, role)


# --- Hidden ---


def test_hidden_images_are_counted(tmp_path):
    thumbnails = {"train/cat/@eaDir/1.png/S.jpg": b"", "test/.thumbnails/3.png": b"", "$RECYCLE.BIN/4.jpg": b""}
    for place in (folder(tmp_path / "a", TREE | RUBBISH | thumbnails), zipped(tmp_path / "b", TREE | thumbnails)):
        with files.opened(place) as found:
            assert set(found.names) == set(TREE)
            (note,) = found.notes
            assert "3" in note
            assert "@eaDir" in note
            assert ".thumbnails" in note
    with files.opened(folder(tmp_path / "c", TREE | RUBBISH)) as found:
        assert found.notes == ()


# --- Links ---

CATS = {"cat/1.png": b"one", "cat/more/2.png": b"two"}


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize("top", ["", "set/", "./set/"])
def test_links_in_archives_are_what_they_point_to(tmp_path, make, top):
    soft = {
        "dog/1.png": "../cat/1.png",
        "dog/2.png": "3.png",  # by way of another link
        "dog/3.png": "../owl/more/2.png",  # through a linked folder
        "owl": "cat",
    }
    hard = {"dog/4.png": f"{top}cat/1.png", "dog/5.png": f"{top}dog/4.png"} if make is tar else {}
    with files.opened(make(tmp_path / "set", CATS, top, soft=soft, **({"hard": hard} if hard else {}))) as found:
        truth = CATS | {"dog/1.png": b"one", "dog/2.png": b"two", "dog/3.png": b"two"}
        truth |= {"owl/1.png": b"one", "owl/more/2.png": b"two"} | dict.fromkeys(hard, b"one")
        assert {name: found.read(name) for name in found.names} == truth


@pytest.mark.parametrize("make", [tar, zipped])
def test_links_out_of_an_archive_are_named(tmp_path, make):
    soft = {
        "dog/1.png": "/etc/passwd",
        "dog/2.png": "../../../etc/passwd",
        "dog/3.png": "3.png",
        "dog/4.png": "gone.png",
        "owl": "../owls",
        "dog/loop": "..",
    }
    with files.opened(make(tmp_path / "set", CATS, "set/", soft=soft)) as found:
        assert set(found.names) == {*CATS, *(f"dog/{n}.png" for n in (1, 2, 3, 4))}
        for name in set(found.names) - set(CATS):
            with pytest.raises(OSError, match="link to"):
                found.read(name)
        (note,) = found.notes
        assert "owls" in note
        assert "dog/loop" in note


def test_links_on_disk_that_lead_nowhere_or_around(tmp_path):
    place = folder(tmp_path / "set", CATS | {"dog/9.png": b"nine"})
    for name, target in {
        "cat/3.png": "gone.png",
        "cat/4.png": "4.png",
        "cat/up": "..",
        "cat/dogs": "../dog",
        "dog/cats": "../cat",  # each holds the other
        "owl": "/nowhere/owl",
    }.items():
        (place / name).symlink_to(target)
    with files.opened(place) as found:
        assert {"cat/dogs/9.png", "dog/cats/1.png", "cat/3.png", "cat/4.png"} < set(found.names)
        for name in ("cat/3.png", "cat/4.png"):
            with pytest.raises(OSError, match="link to"):
                found.read(name)
        assert max(name.count("/") for name in found.names) <= 3
        (note,) = found.notes
        assert {name in note for name in ("owl", "cat/up", "cat/dogs/cats", "dog/cats/dogs")} == {True}
    assert set(files.walk(place)) == set(found.names) - {n for n in found.names if n.endswith(("/3.png", "/4.png"))}


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(folder(tmp_path, CATS) / "cat" / "pipe.png")
    with files.opened(tmp_path) as found, pytest.raises(OSError, match="regular"):
        found.read("pipe.png")


def test_a_pipe_or_a_device_is_no_folder_of_images(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(DataError, match=str(place)), files.opened(place):
            pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_named(tmp_path):
    place = folder(tmp_path, TREE)
    (place / "train/cat").chmod(0)
    with pytest.raises(DataError, match="train/cat"), files.opened(place):
        pass


# --- Other files ---


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("set.7z", b"7z\xbc\xaf\x27\x1c", "unpack"),
        ("set.rar", b"Rar!\x1a\x07", "unpack"),
        ("set.parquet", b"PAR1", "folder of image"),
        ("labels.csv", b"name,label\n", "folder of image"),
        ("alone.png", picture(1), "folder of image"),
        ("alone.HEIC", b"\0\0\0\x18ftypheic", "folder of image"),
        ("disk.iso", bytes(4096), "unpack"),
        ("disk.dmg", b"koly", "unpack"),
        ("notes.txt", b"text", "folder of image"),
        ("README", b"text", "folder of image"),
        ("empty.zip", b"", "again"),
        ("text.tar", b"text", "folder of image"),
        ("table.csv.gz", gzip.compress(b"a,b\n", mtime=0), "folder of image"),
        ("locked.zip", None, "password"),
        ("deflate64.zip", None, "unpack"),
    ],
)
def test_files_of_other_kinds_are_named_with_what_to_do(tmp_path, name, content, advice):
    if content is None:
        whole = zipped(tmp_path / "whole.zip", by_class("")).read_bytes()
        content = named(whole, 8 if name.startswith("locked") else 10)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name) as caught, files.opened(tmp_path / name):
        pass
    assert advice in str(caught.value)
    assert ("again" in str(caught.value)) == name.endswith((".tar", ".gz", "empty.zip"))
    assert ":." not in str(caught.value)


# --- Names ---


def test_names_that_cannot_be_printed_are_shown_otherwise():
    assert errors.shown("caf\udce9") == "café", "Latin-1"
    assert errors.shown("a\nb\t") == r"a\nb\t"
    assert errors.shown("Größe 5 $ 日本") == "Größe 5 $ 日本"
    str(DataError("caf\udce9")).encode()
