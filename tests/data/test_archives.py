"""Where a data set is looked for, and what tells that it has changed."""

import os

import pytest
from trees import folder, tar, zipped

from lwnb.base.errors import DataError
from lwnb.data import archives
from lwnb.plan import facts
from lwnb.plan.run import Source

TREE = {"train/cat/1.png": b"one", "train/dog/2.png": b"two", "test/cat/3.png": b"three", "words.txt": b"w"}
RUBBISH = {".DS_Store": b"x", "train/cat/._1.png": b"x", "__MACOSX/train/1.png": b"x", "test/Thumbs.db": b"x"}


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
    folder(house / "data", {name: b"" for name in facts.DATASETS[dataset].files})  # nor is it searched for elsewhere
    (house / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        archives.find(Source(dataset=dataset, data_root=str(house / "empty")))
    for name in facts.DATASETS[dataset].files:
        assert str(house / "empty" / name) in str(caught.value)
    assert "data_root" in str(caught.value)
    assert "digits" in str(caught.value)


def test_a_folder_that_is_not_there(house):
    with pytest.raises(DataError, match="folder: not found; looked for .*/photos.* Set data_root"):
        archives.find(Source(dataset="folder", data_root="photos"))
