import hashlib
import os
import subprocess
import sys

import pytest
from planted import RUN

from lwnb.base import places
from lwnb.base.errors import ParamsError
from lwnb.batch import grid
from lwnb.plan import facts, paramfiles, run
from lwnb.plan.params import Params, check
from lwnb.plan.run import FIRST, Run


def test_key_is_the_hash_of_the_canonical_fields_written_by_hand():
    text = (
        '{"augment":"none","batch_size":64,"classes":"all","dataset":"digits","digest":"' + "0" * 64 + '",'
        '"epochs":3,"freeze":false,"image_size":32,"label_smoothing":0.0,"lr":0.1,"model":"resnet18",'
        '"optimizer":"sgd","output_stride":32,"patience":0,"precision":"fp32","recipe":1,"schedule":"cosine",'
        '"seed":0,"select":"best","split_seed":0,"subset_seed":0,"test_size":0,"train_size":0,"val_share":0.1,'
        '"warmup_epochs":0.0,"weight_decay":0.0005,"weights":"none"}'
    )
    assert Run(**RUN).key == hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize("field", [f for f in Run.model_fields if f not in ("source", "weights_file")])
def test_every_field_enters_the_key(field):
    other = {
        "dataset": "cifar10", "digest": "1" * 64, "classes": "0:5", "val_share": 0.2, "image_size": 64,
        "model": "squeezenet1_1", "output_stride": 16, "weights": "imagenet", "freeze": True, "augment": "crop",
        "optimizer": "adamw", "lr": 0.2, "weight_decay": 0.1, "label_smoothing": 0.1, "schedule": "step",
        "warmup_epochs": 1.0, "batch_size": 32, "epochs": 4, "select": "last", "precision": "bf16", "recipe": 2,
    }  # fmt: skip
    start = RUN | ({"weights": "imagenet"} if field == "freeze" else {})
    assert Run(**start | {field: other.get(field, 7)}).key != Run(**start).key


def test_a_field_that_came_later_changes_no_key_while_it_stands_at_its_default():
    class Later(Run):
        averaging: str = "none"

    assert Later(**RUN).key == Run(**RUN).key
    assert Later(**RUN, averaging="ema").key != Run(**RUN).key
    assert set(FIRST) <= set(Run.model_fields)


def test_where_things_lie_does_not_enter_the_key():
    elsewhere = run.Source(dataset="digits", data_root="/somewhere/else")
    assert Run(**RUN, source=elsewhere, weights_file="/x.safetensors").key == Run(**RUN).key


def test_key_is_the_same_in_another_process():
    code = f"from lwnb.plan.run import Run; print(Run(**{RUN!r}).key)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == Run(**RUN).key


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epocs": 3}, ["epocs", "unknown", "did you mean 'epochs'?"]),
        ({"lr": "1e-3"}, ["lr", "'1e-3'", "1.0e-3"]),
        ({"lr": -0.1}, ["lr", "-0.1", "greater than 0"]),
        ({"optimizer": "adam"}, ["optimizer", "'adam'", "'sgd' or 'adamw'", "did you mean 'adamw'?"]),
        ({"models": ["resnet81"]}, ["models.0", "'resnet81'", "did you mean 'resnet18'?"]),
        ({"epochs": True}, ["epochs", "True"]),
        ({"output_stride": 4}, ["output_stride", "4", "8, 16 or 32"]),
        ({"augment": "flip-corp"}, ["augment", "'flip-corp'", "did you mean 'flip-crop'?"]),
        ({"augment": "crop+mixup+cutmix"}, ["'crop+mixup+cutmix'", "mixup, cutmix"]),
        ({"augment": "crop+crop"}, ["'crop+crop'", "once"]),
        ({"augment": "flip-crop"}, ["flip-crop", "mirrored digit", "'crop'"]),
        ({"dataset": "folder"}, ["data_root", "folder of images"]),
        ({"num_classes": 3}, ["num_classes", "3", "digits", "10"]),
        ({"recipe": 2}, ["recipe", "2", "1"]),
        ({"dataset": [1]}, ["dataset", "[1]"]),
        ({"dataset": "cifar10", "mirror_safe": False, "policies": ["flip-crop+mixup"]}, ["mirror_safe is false"]),
    ],
)  # fmt: skip
def test_impossible_parameters_name_value_and_what_is_allowed(values, words):
    with pytest.raises(ParamsError) as error:
        check(values)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_all_faults_are_told_at_once():
    with pytest.raises(ParamsError) as error:
        check({"epochs": 0, "lr": 0.0})
    assert {line.split(":")[0] for line in str(error.value).splitlines()} == {"epochs", "lr"}


def test_any_classification_network_of_torchvision_is_known():
    assert check({"models": ["mobilenet_v2", "regnet_y_400mf"]}).models[0] == "mobilenet_v2"


def test_later_files_win_and_changes_win_over_files(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("epochs: 3\nlr: 1.0e-2\n")
    second.write_text("epochs: 4\n")
    p = paramfiles.read(first, second, batch_size=16)
    assert (p.epochs, p.lr, p.batch_size) == (4, 0.01, 16)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"- 1\n- 2\n", ["list"]),
        (b"a: [1\n", ["line 2"]),
        (b"epochs: 3\n5: 1\n", ["5"]),
        (b"seeds: 2020-13-45\n", ["month"]),
        ("title: Größe\n".encode("latin-1"), ["UTF-8"]),
        (b"0", ["int"]),
        (None, ["directory"]),
    ],
)
def test_a_file_that_is_no_flat_mapping_is_named_in_one_line(tmp_path, content, words):
    file = tmp_path / "bad.yaml"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(ParamsError) as error:
        paramfiles.read(file)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in ["bad.yaml", *words])


@pytest.mark.parametrize("line", ["source: 822391747663", "title: 2024", "title: 2024-01-01", "source: no"])
def test_a_file_with_a_number_in_place_of_a_text_is_told_of_quotes(tmp_path, line):
    (tmp_path / "a.yaml").write_text(line)
    with pytest.raises(ParamsError, match="quotes"):
        paramfiles.read(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("source=822391747663", "822391747663"),
        ("source=12e456789012", "12e456789012"),
        ("source=012345670123", "012345670123"),
        ("source='012345670123'", "012345670123"),
        ("title=a = b", "a = b"),
        ("precision=bf16", "bf16"),
        ("data_root=none/of # these", "none/of # these"),
        ("data_root=null", None),
        ("digest=", ""),
        ("lr=1e-3", 0.001),
        ("tune_lrs=[1e-3, 2.0e-3]", [0.001, 0.002]),
        ("epochs=5", 5),
        ("output_stride=16", 16),
        ("mirror_safe=false", False),
        ("models=[resnet18, squeezenet1_1]", ["resnet18", "squeezenet1_1"]),
    ],
)
def test_a_change_is_read_by_its_parameter_s_type(text, value):
    assert repr(paramfiles.change(text)) == repr((text.split("=")[0], value))


@pytest.mark.parametrize("text", ["epochs={", "seeds=2020-13-45", "models=[a", "epochs"])
def test_a_change_that_cannot_be_read_is_named_in_one_line(text):
    with pytest.raises(ParamsError) as error:
        paramfiles.change(text)
    assert text in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("title", ['Größe 5 % & "more", it\'s (new) +~^=;:,.?/@!-', "my_photos", "C#", "花 2"])
def test_a_title_may_hold_what_shows_as_it_stands(title):
    assert check({"title": title}).title == title


@pytest.mark.parametrize(
    "title",
    [
        *(f"a{mark}b" for mark in "<>`$*|\\{}[]\n\t\x00\x1b\u202e"), "see [this](nowhere.md)", "a _b_", "# a", "a # b",
        " a", "a ", "!a", "x" * 81,
    ],
)  # fmt: skip
def test_a_title_that_would_show_as_something_else_is_refused(title):
    with pytest.raises(ParamsError, match="^title: "):
        check({"title": title})


@pytest.mark.parametrize("name", ["", "index", "a/b", "a b", ".a", "ä", "a\n", "x" * 81])
def test_a_page_s_name_that_cannot_name_files_is_refused(name):
    assert paramfiles.page_name("cifar10-long_2.b") == "cifar10-long_2.b"
    with pytest.raises(ParamsError, match="page "):
        paramfiles.page_name(name)


def test_an_empty_home_is_none_and_a_tilde_is_the_user_s_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LWNB_RESULTS", "~/published")
    for value, place in {"": places.CHECKOUT, "~": tmp_path, "~/x": tmp_path / "x"}.items():
        monkeypatch.setenv("LWNB_HOME", value)
        assert places.home() == place
        places.settle()
        assert os.environ["LWNB_HOME"] == (str(place) if value else "")
        assert places.shelves()[-1] == tmp_path / "published"


def test_a_relative_home_is_where_the_command_stands_and_refused_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LWNB_HOME", "x")
    with pytest.raises(ParamsError, match="LWNB_HOME: 'x'"):
        places.home()
    places.settle()
    monkeypatch.chdir("/")
    assert places.home() == tmp_path / "x"


def test_records_are_looked_up_in_the_home_and_then_in_the_project(monkeypatch, house):
    monkeypatch.delenv("LWNB_RESULTS")
    assert places.shelves() == [house / "runs", house / "results", places.CHECKOUT / "results"]
    monkeypatch.delenv("LWNB_HOME")
    assert places.shelves() == [places.CHECKOUT / "runs", places.CHECKOUT / "results"]


@pytest.mark.parametrize("budget", ["[cpu]", "5", "../cpu", "{a: 1}"])
def test_a_budget_that_is_no_name_is_refused_with_those_that_are_there(tmp_path, budget):
    page = tmp_path / "mine.yaml"
    page.write_text(f"budget: {budget}\n")
    with pytest.raises(ParamsError, match="mine.yaml: budget: .*cpu, .*quick"):
        paramfiles.files_of(str(page))


def test_a_missing_file_is_named_with_those_that_are_there():
    with pytest.raises(ParamsError, match="digits"):
        paramfiles.read(paramfiles.file_of("digitz"))


PAGES = [f.stem for f in (places.CHECKOUT / "params").glob("*.yaml") if not f.stem.startswith(("budget", "tuned"))]
BUDGETS = [f.stem for f in (places.CHECKOUT / "params").glob("budget-*.yaml")]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("page", PAGES)
def test_every_page_goes_with_every_budget(page, budget):
    p = paramfiles.read(paramfiles.file_of(page), paramfiles.file_of(budget))
    assert p.budget == budget.removeprefix("budget-")


def test_the_defaults_pinned_are_digits_at_budget_quick_with_a_source_that_needs_no_record(house):
    p = paramfiles.read(paramfiles.file_of("digits"), paramfiles.file_of("budget-quick"), source="classes")
    assert grid.pin(Params()) == p


@pytest.mark.parametrize("dataset", facts.DATASETS)
def test_no_default_belongs_to_one_data_set(dataset):
    """What each data set has by itself is known for it or left open, and never that of another one."""
    known = {"digits": 10, "cifar10": 10, "cifar100": 100, "tiny-imagenet": 200, "folder": 0}
    p = check({"dataset": dataset, "data_root": "somewhere"})
    assert (p.digest, p.pool_train, p.pool_test, p.num_classes) == ("", 0, 0, known[dataset])
    assert dataset == "digits" or "digits" not in p.title.lower()


CELL = 'title = "A"\ndataset = "digits"\nepochs = 3\n'


@pytest.mark.parametrize(
    "cells",
    [
        [CELL, "runs = [1]", "epocs = 4", "%% no Python"],
        [CELL + "epocs = 4", CELL],
        [CELL, "# Parameters\nepocs = 4\n", CELL],
        [CELL, "# Parameters\nepocs = 4\n", "# Parameters\nepochs = 3\n"],
    ],
)
def test_only_the_last_cells_of_parameters_give_a_notebook_s_parameters(cells):
    names = {"epochs": 3, "dataset": "digits", "runs": [1], "epocs": 4, "pd": sys, "In": ["", *cells, "setup()"]}
    assert paramfiles.collect(names).epochs == 3


@pytest.mark.parametrize(
    "cells", [[CELL + "epocs = 4"], [CELL, "# Parameters\nepocs = 4\n"], ["x = 1", CELL + "epocs = 4", "x"]]
)
def test_a_misspelt_parameter_of_a_notebook_is_refused(cells):
    with pytest.raises(ParamsError, match="epocs.*'epochs'"):
        paramfiles.collect({"epochs": 3, "epocs": 4, "In": ["", *cells]})


def test_a_notebook_s_parameter_of_another_type_is_refused():
    with pytest.raises(ParamsError, match="lr: .*'a': 1"):
        paramfiles.collect({"lr": {"a": 1}, "In": []})


def test_a_page_s_own_data_set_is_no_source():
    with pytest.raises(ParamsError, match="source: 'cifar10' is the page's own"):
        check({"dataset": "cifar10", "augment": "none", "policies": ["none"], "source": "cifar10"})


def test_a_file_is_read_anew_when_it_changed_and_what_was_read_may_be_changed(tmp_path):
    file = tmp_path / "page.yaml"
    for lrs in ([1, 2], [3, 4]):
        file.write_text(f"tune_lrs: {lrs}\n")
        for _ in range(2):
            read_now = paramfiles.merge([file])
            assert read_now == {"tune_lrs": lrs}
            read_now["tune_lrs"].append(5)
