"""The doors of data sets and of augmentation policies: a made-up one of each is a row, and is known everywhere."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import frame, plant
from torchvision.datasets import CIFAR10, CIFAR100

from lwnb import cli
from lwnb.base import doors
from lwnb.base.errors import DataError, ParamsError
from lwnb.base.places import CHECKOUT
from lwnb.data import archives, readers, sets
from lwnb.edge import convert
from lwnb.evidence import claims
from lwnb.evidence.arms import Evidence
from lwnb.plan import facts, paramfiles, params, studies
from lwnb.plan.run import Source
from lwnb.records import results
from lwnb.report import findings

PAGE = """
dataset: stripes
notebooks: [01_architectures, 03_augmentation]
models: [squeezenet1_1]
augment_model: squeezenet1_1
augment: upside-down
policies: [none, upside-down+mixup]
train_size: 0
image_size: 32
budget: quick
epochs: 2
batch_size: 8
"""


def stripes(source: Source, path: None, image_size: int | None) -> readers.Contents:
    """Twenty noisy images of 16 x 16 pixels of each of two classes, half of them for testing."""
    draw, parts = np.random.default_rng(0), []
    for _ in range(2):
        pixels, labels = draw.integers(0, 256, (20, 3, 16, 16), np.uint8), np.arange(20) % 2
        pixels[labels == 1, :, ::2] = 255
        ids = readers._hashes(image.tobytes() for image in pixels)
        parts.append(readers.Part(pixels, labels, ids, ids))
    return readers.Contents(("plain", "striped"), ("plain", "striped"), *parts)


seen = []
"""The shapes of the batches that the made-up policy was given."""


def upside_down(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    seen.append((images.dtype, tuple(images.shape[1:])))
    return images.flip(-2)


@pytest.fixture
def made_up(house, monkeypatch):
    """The page of a data set and a policy that the tables have got a row for, and nothing else."""
    row = facts.DataSet("Stripes", f"{__name__}:stripes", "made up: free for all", classes=2, side=16)
    monkeypatch.setitem(facts.DATASETS, "stripes", row)
    monkeypatch.setitem(facts.POLICIES, "upside-down", facts.Policy("pixels", f"{__name__}:upside_down"))
    seen.clear()
    page = house / "stripes.yaml"
    page.write_text(PAGE)
    return page


def lwnb(*arguments):
    cli.app([*map(str, arguments)], standalone_mode=False)


def test_a_plan_lists_the_runs_of_what_is_made_up(made_up, capsys):
    lwnb("plan", made_up)
    out = capsys.readouterr().out
    assert out.count("squeezenet1_1") == out.count("missing") == 3 and "upside-down+mixup" in out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("dataset=stripe", ["dataset", "'stripe'", "digits", "did you mean 'stripes'?"]),
        ("augment=upside-dwn", ["augment", "'upside-dwn'", "flip-crop", "did you mean 'upside-down'?"]),
        ("source=stripse", ["source", "'stripse'", "did you mean 'stripes'?"]),
    ],
)
def test_a_wrong_name_is_refused_with_the_made_up_one_as_the_nearest(made_up, change, words):
    more = ["-p", "notebooks=[02_transfer]", "-p", "augment=crop"] if change.startswith("source") else []
    with pytest.raises(ParamsError) as error:
        lwnb("plan", made_up, *more, "-p", change)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_what_is_made_up_is_trained_with_and_its_file_carries_its_terms(made_up, capsys):
    lwnb("run", made_up, "-w", "1", "-s", "01_architectures")
    (record,) = results.every()
    assert (record.run.dataset, record.run.augment) == ("stripes", "upside-down")
    assert record.metrics["epochs_run"] == 2 and record.metrics["classes"] == ["plain", "striped"]
    assert record.metrics["n_test"] == 20 and set(seen) == {(torch.uint8, (3, 32, 32))}
    about = convert.about(record)
    assert about["data_terms"] == "made up: free for all" and about["sizes"] == "[16, 32]"


def test_a_page_s_text_has_the_made_up_title_and_what_has_seen_its_images(made_up, monkeypatch):
    p = paramfiles.read(*paramfiles.files_of(str(made_up)))
    assert (p.title, p.num_classes) == ("Stripes", 2)
    record = plant(dataset="stripes", weights="imagenet", model="resnet18")
    evidence = Evidence(frame([record]), {record.run.key: record}, frame([record]))
    sides = {"group": {"model": "resnet18"}, "rivals": "others", "study": "01_architectures", "rule": "better"}
    claim = claims.Claim(id="X", statement="One wins.", source="somewhere", datasets=["cifar10"], **sides)
    (verdict,) = claims.judge([claim], {"page": p}, {"page": {"01_architectures": evidence}})
    assert any("CIFAR-10" in reason and "Stripes" in reason for reason in verdict.reasons)
    before = findings.limits(p, frame([record]), [record])
    monkeypatch.setitem(facts.DATASETS, "stripes", replace(facts.DATASETS["stripes"], seen_by=("imagenet",)))
    (added,) = [one for one in findings.limits(p, frame([record]), [record]) if one not in before]
    assert (added.kind, added.values) == ("seen", {"weights": "imagenet", "dataset": "Stripes"})


def test_images_that_lose_their_label_are_mirrored_by_no_policy_that_mirrors(made_up, monkeypatch):
    values = {"dataset": "stripes", "augment": "none", "policies": ["crop+upside-down"]}
    assert params.check(values).policies == values["policies"]
    monkeypatch.setitem(facts.POLICIES, "upside-down", replace(facts.POLICIES["upside-down"], mirrors=True))
    assert params.check(values).policies == values["policies"]
    with pytest.raises(ParamsError, match="upside-down.*mirror_safe"):
        params.check(values | {"mirror_safe": False})
    row = replace(facts.DATASETS["stripes"], unmirrored="up is not down")
    monkeypatch.setitem(facts.DATASETS, "stripes", row)
    with pytest.raises(ParamsError, match="upside-down.*up is not down"):
        params.check(values)
    with pytest.raises(ValueError, match="upside-down.*up is not down"):
        studies.base(params.check(values | {"policies": ["crop"]}), model="resnet18", augment="upside-down")


def test_a_made_up_policy_that_mixes_stands_alone_among_those(made_up, monkeypatch):
    monkeypatch.setitem(facts.POLICIES, "swap", facts.Policy("mixing", "nowhere:never_called"))
    with pytest.raises(ParamsError, match="mixup, cutmix, swap"):
        params.check({"dataset": "stripes", "augment": "swap+mixup"})


def test_the_user_s_own_images_are_read_at_the_size_asked_for_and_counted_anew(made_up, monkeypatch):
    """As a folder is, whatever the name of the row."""
    row = replace(facts.DATASETS["folder"], title="Herbarium")
    monkeypatch.setitem(facts.DATASETS, "herbarium", row)
    with pytest.raises(ParamsError, match="data_root.*herbarium"):
        params.check({"dataset": "herbarium"})
    with pytest.raises(DataError, match="herbarium: not found.*leaves.*data_root"):
        archives.here(Source(dataset="herbarium", data_root="leaves"))
    record = plant(dataset="herbarium", image_size=48)
    assert convert.sizes(record.run) == [48]


def test_a_data_set_that_cannot_be_downloaded_says_where_it_was_looked_for(made_up, house, monkeypatch):
    row = replace(facts.DATASETS["stripes"], files=("stripes.tar",))
    monkeypatch.setitem(facts.DATASETS, "stripes", row)
    with pytest.raises(DataError, match="stripes: not found.*stripes.tar.*data_root"):
        sets.load(Source(dataset="stripes"))


def test_every_row_names_a_function_that_is_there():
    works = [row.read for row in facts.DATASETS.values()] + [row.work for row in facts.POLICIES.values()]
    assert all(callable(doors.resolve(work)) for work in works)


@pytest.mark.parametrize(("dataset", "kind"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_cifar_is_downloaded_from_where_torchvision_has_it(dataset, kind):
    assert facts.DATASETS[dataset].origin == (kind.url, kind.tgz_md5)


def test_the_book_s_page_on_data_sets_says_what_the_table_says():
    text = (CHECKOUT / "book" / "data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \|.*?\| (.+?) \| (.+?) \| (.+?) \| (.+?) \|", text, re.MULTILINE)
    assert [name for name, *_ in rows] == list(facts.DATASETS)
    for name, classes, pixels, train, test in rows:
        row = facts.DATASETS[name]
        assert classes == (str(row.classes) if row.classes else "any")
        assert pixels == (f"{row.side} × {row.side}" if row.side else "any")
        assert row.whole == (0, 0) or (train, test) == tuple(f"{count:,}" for count in row.whole)


def test_known_gives_the_row_or_refuses_with_the_nearest_name():
    assert doors.known("folder", facts.DATASETS, "--dataset").own
    with pytest.raises(ParamsError, match="--dataset: 'fodler'.*cifar10.*'folder'"):
        doors.known("fodler", facts.DATASETS, "--dataset")
