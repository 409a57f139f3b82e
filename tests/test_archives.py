"""Folders, tars and zips of the same files; where a data set is looked for."""

import os

import pytest
from trees import folder, picture, tar, zipped

from lwnb import archives
from lwnb.archives import DataError
from lwnb.params import Source

TREE = {"train/cat/1.png": b"one", "train/dog/2.png": b"two", "test/cat/3.png": b"three", "words.txt": b"w"}
RUBBISH = {".DS_Store": b"x", "train/cat/._1.png": b"x", "__MACOSX/train/1.png": b"x", "test/Thumbs.db": b"x"}

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
    with archives.opened(FORMS[form](tmp_path)) as files:
        assert {name: files.read(name) for name in files.names} == TREE


def test_a_lone_train_folder_is_no_wrapper(tmp_path):
    with archives.opened(folder(tmp_path, {"train/cat/1.png": b"1", "train/dog/1.png": b"2"})) as files:
        assert set(files.names) == {"train/cat/1.png", "train/dog/1.png"}


def test_links_to_folders_are_followed(tmp_path):
    elsewhere = folder(tmp_path / "elsewhere", {"1.png": b"one"})
    (folder(tmp_path / "set", {"dog/2.png": b"two"}) / "cat").symlink_to(elsewhere)
    with archives.opened(tmp_path / "set") as files:
        assert files.names == ("cat/1.png", "dog/2.png")


@pytest.mark.parametrize("make", [tar, zipped])
def test_an_archive_cut_short_is_refused(tmp_path, make):
    tree = {f"cat/{seed}.png": picture(seed, 64) for seed in range(4)}
    whole = make(tmp_path / "set", tree)
    whole.write_bytes(whole.read_bytes()[:20_000])
    with pytest.raises(DataError, match="not a whole one"), archives.opened(whole) as files:
        for name in files.names:
            files.read(name)


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 99])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "set.tar").write_bytes(content)
    with pytest.raises(DataError, match="set.tar: not a tar or zip"), archives.opened(tmp_path / "set.tar"):
        pass


def test_fingerprint_tells_a_changed_file_and_ignores_rubbish(tmp_path):
    place = folder(tmp_path, TREE)
    seen = [archives.fingerprint(place)]
    folder(place, RUBBISH)
    assert archives.fingerprint(place) == seen[0]
    (place / "words.txt").write_bytes(b"v")  # of the same length
    os.utime(place / "words.txt", ns=(1, 1))
    seen.append(archives.fingerprint(place))
    (place / "words.txt").rename(place / "names.txt")
    seen.append(archives.fingerprint(place))
    (place / "names.txt").unlink()
    seen.append(archives.fingerprint(place))
    assert len(set(seen)) == 4


def test_data_root_is_the_archive_the_folder_or_what_holds_them(house):
    inside = house / "mine"
    archive = tar(folder(inside, {"other.txt": b""}) / "cifar10.tar", TREE)
    renamed = tar(inside / "copy.tar", TREE)
    loose = folder(house / "loose", TREE)
    for root, expected in ((inside, archive), (archive, archive), (renamed, renamed), (loose, loose)):
        assert archives.find(Source(dataset="cifar10", data_root=str(root))) == expected
    assert archives.find(Source(dataset="cifar10", data_root="mine")) == archive, "from the home, if it is relative"
    assert archives.find(Source(dataset="folder", data_root="loose")) == loose
    assert archives.find(Source(dataset="digits")) is None


def test_the_default_place_is_data_in_the_home(house):
    archive = zipped(folder(house / "data", {"x": b""}) / "tiny-imagenet-200.zip", TREE)
    assert archives.find(Source(dataset="tiny-imagenet")) == archive


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "tiny-imagenet"])
def test_a_data_root_without_the_data_set_is_an_error_and_no_reason_to_download(house, monkeypatch, dataset):
    monkeypatch.setattr(archives, "_download", lambda *_: pytest.fail("downloaded all the same"))
    folder(house / "data", {name: b"" for name in archives.KNOWN[dataset]})  # nor is it searched for elsewhere
    (house / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        archives.find(Source(dataset=dataset, data_root=str(house / "empty")))
    for name in archives.KNOWN[dataset]:
        assert str(house / "empty" / name) in str(caught.value)
    assert "data_root" in str(caught.value)
    assert "digits" in str(caught.value)


def test_a_folder_that_is_not_there(house):
    with pytest.raises(DataError, match="folder: not found; looked for .*/photos.* Set data_root"):
        archives.find(Source(dataset="folder", data_root="photos"))
