import hashlib
import subprocess
import sys

import pytest

from lwnb import grid, params
from lwnb.params import Params, ParamsError, Run, check

RUN = {
    "dataset": "digits", "digest": "0" * 64, "image_size": 32, "model": "resnet18", "optimizer": "sgd",
    "lr": 0.1, "weight_decay": 5.0e-4, "schedule": "cosine", "batch_size": 64, "epochs": 3,
}  # fmt: skip


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


def test_where_things_lie_does_not_enter_the_key():
    elsewhere = params.Source(dataset="digits", data_root="/somewhere/else")
    assert Run(**RUN, source=elsewhere, weights_file="/x.safetensors").key == Run(**RUN).key


def test_key_is_the_same_in_another_process():
    code = f"from lwnb.params import Run; print(Run(**{RUN!r}).key)"
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
        ({"augment": "crop+mixup+cutmix"}, ["'crop+mixup+cutmix'", "only one of mixup and cutmix"]),
        ({"augment": "crop+crop"}, ["'crop+crop'", "once"]),
        ({"augment": "flip-crop"}, ["flip-crop", "mirrored digit", "use 'crop'"]),
        ({"dataset": "folder"}, ["data_root", "folder of images"]),
        ({"num_classes": 3}, ["num_classes", "3", "digits", "10"]),
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
    p = params.read(first, second, batch_size=16)
    assert (p.epochs, p.lr, p.batch_size) == (4, 0.01, 16)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [1\n"])
def test_a_file_that_is_no_flat_mapping_is_named(tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ParamsError, match="bad.yaml"):
        params.read(file)


def test_a_missing_file_is_named_with_those_that_are_there():
    with pytest.raises(ParamsError, match="digits"):
        params.read(params.file_of("digitz"))


PAGES = [f.stem for f in (params.CHECKOUT / "params").glob("*.yaml") if not f.stem.startswith(("budget", "tuned"))]
BUDGETS = [f.stem for f in (params.CHECKOUT / "params").glob("budget-*.yaml")]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("page", PAGES)
def test_every_page_goes_with_every_budget(page, budget):
    p = params.read(params.file_of(page), params.file_of(budget))
    assert p.budget == budget.removeprefix("budget-")


def test_the_defaults_pinned_are_digits_at_budget_quick_with_a_source_that_needs_no_record(house):
    p = params.read(params.file_of("digits"), params.file_of("budget-quick"), source="classes")
    assert grid.pin(Params()) == p


@pytest.mark.parametrize("dataset", params.DATASETS)
def test_no_default_belongs_to_one_data_set(dataset):
    """What each data set has by itself is known for it or left open, and never that of another one."""
    known = {"digits": 10, "cifar10": 10, "cifar100": 100, "tiny-imagenet": 200, "folder": 0}
    p = check({"dataset": dataset, "data_root": "somewhere"})
    assert (p.digest, p.pool_train, p.pool_test, p.num_classes) == ("", 0, 0, known[dataset])
    assert dataset == "digits" or "digits" not in p.title.lower()


def test_a_notebook_s_names_become_parameters_and_a_misspelt_one_is_refused():
    names = {"epochs": 3, "pd": sys, "_i1": "x", "In": [], "Out": {}, "get_ipython": print}
    assert params.collect(names).epochs == 3
    with pytest.raises(ParamsError, match="epocs"):
        params.collect(names | {"epocs": 3})


def test_a_page_s_own_data_set_is_no_source():
    with pytest.raises(ParamsError, match="source: 'cifar10' is the page's own"):
        check({"dataset": "cifar10", "augment": "none", "policies": ["none"], "source": "cifar10"})
