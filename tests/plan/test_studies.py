import hashlib
import itertools
import subprocess
import sys
import time

import pytest

from lwnb.base.errors import ParamsError
from lwnb.plan import facts, paramfiles, studies
from lwnb.plan.params import check

DIGEST = "d" * 64


def page(**values):
    return check({"digest": DIGEST, "pool_train": 1000} | values)


def test_architectures_is_every_network_by_every_seed_and_seeds_move_the_split():
    runs = studies.architectures(page(seeds=3, first_seed=5))
    assert {(r.model, r.seed) for r in runs} == set(itertools.product(facts.FIVE, (5, 6, 7)))
    assert all(r.split_seed == r.seed for r in runs)


def test_networks_differ_in_nothing_but_the_network():
    runs = [r.model_dump() | {"model": ""} for r in studies.architectures(page())]
    assert all(run == runs[0] for run in runs)


def test_more_images_than_there_are_is_all_of_them():
    assert (
        studies.base(page(train_size=1000), model="resnet18").key
        == studies.base(page(train_size=0), model="resnet18").key
    )
    assert studies.base(page(train_size=999), model="resnet18").train_size == 999


def test_transfer_tries_every_learning_rate_in_every_arm():
    p = page(transfer_sizes=[100, 0], transfer_lrs=[1.0e-3, 3.0e-3, 1.0e-2])
    source, *rest = studies.transfer(p)
    assert len(rest) == 2 * 3 * 3 and rest == studies.on_target(p)
    for arm in ("from scratch", "frozen backbone", "fine-tuned"):
        assert sorted({r.lr for r in rest if r.arm == arm}) == [1.0e-3, 3.0e-3, 1.0e-2]
    assert {r.parent for r in rest} == {None, source.key}


def test_train_size_bounds_the_sizes_of_transfer():
    def sizes(**values):
        return [
            run.train_size
            for run in studies.on_target(page(transfer_lrs=[0.01], **values))
            if run.arm == "from scratch"
        ]

    assert sizes(train_size=500, transfer_sizes=[100, 800, 0]) == [100, 500]
    assert sizes(train_size=0, transfer_sizes=[100, 800, 0]) == [100, 800, 0]


def test_the_classes_of_source_and_target_are_disjoint():
    source, *rest = studies.transfer(page(dataset="folder", data_root="somewhere", num_classes=7))
    (low, middle), (start, high) = (map(int, r.classes.split(":")) for r in (source, rest[0]))
    assert (low, middle, start, high) == (0, 3, 3, 7)


def test_another_data_set_as_source_brings_its_own_digest():
    p = page(dataset="cifar10", augment="none", policies=["none"], source="cifar100", data_root="somewhere")
    source, *rest = studies.transfer(p)
    assert (
        source.dataset == "cifar100" and source.digest == paramfiles.read(paramfiles.file_of("cifar100")).digest != ""
    )
    assert source.key == studies.pretraining("cifar100", "mobilenet_v3_small").key  # whatever the page and its budget
    assert source.source.data_root == "somewhere" and all(r.dataset == "cifar10" and r.classes == "all" for r in rest)


def test_a_weights_file_enters_by_its_content(tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"weights")
    run = next(r for r in studies.transfer(page(source=str(file))) if r.arm == "fine-tuned")
    assert run.weights == "sha256:" + hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("source", ["imagnet", "missing.safetensors", "12345"])
def test_a_source_that_cannot_be_is_refused(source):
    with pytest.raises(ParamsError, match=source):
        studies.transfer(page(source=source))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_few_classes_are_no_source_for_the_others(classes):
    few = page(dataset="folder", data_root="somewhere", num_classes=classes)
    with pytest.raises(ParamsError, match=f"'classes'.* {classes}"):
        studies.transfer(few)
    assert studies.architectures(few), "the other studies need no source"


def test_a_folder_downloads_nothing_for_its_source():
    (first, *_) = studies.transfer(page(dataset="folder", data_root="somewhere", num_classes=3, source="cifar100"))
    assert first.dataset == "cifar100" and first.source.data_root == "data"


def test_augmentation_is_every_policy():
    runs = studies.augmentation(page(policies=["none", "mixup"], seeds=2))
    assert [(r.augment, r.seed) for r in runs] == [("none", 0), ("none", 1), ("mixup", 0), ("mixup", 1)]


def test_a_study_can_have_fewer_seeds_than_the_page():
    p = page(policies=["none"], trials=2, seeds=3, augment_seeds=1, hyper_seeds=2)
    studied = [studies.architectures(p), studies.augmentation(p), studies.hyperparameters(p)]
    assert [{run.seed for run in runs} for runs in studied] == [{0, 1, 2}, {0}, {0, 1}]


def test_a_grid_is_the_product_of_its_axes_with_each_optimiser_s_own_rates():
    p = page(design="grid", sgd_lrs=[0.1], adamw_lrs=[0.001, 0.01], hyper_batch_sizes=[32, 64])
    p = p.model_copy(update={"hyper_schedules": ["step"], "hyper_weight_decays": [0.0]})
    runs = studies.hyperparameters(p)
    assert {(r.optimizer, r.lr, r.batch_size) for r in runs} == {
        ("sgd", 0.1, 32), ("sgd", 0.1, 64), ("adamw", 0.001, 32),
        ("adamw", 0.001, 64), ("adamw", 0.01, 32), ("adamw", 0.01, 64),
    }  # fmt: skip


def test_a_sobol_sample_is_seeded_balanced_and_inside_its_ranges():
    runs = studies.hyperparameters(page(trials=16))
    assert [r.key for r in runs] == [r.key for r in studies.hyperparameters(page(trials=16))]
    assert [r.key for r in runs] != [r.key for r in studies.hyperparameters(page(trials=16, first_seed=1))]
    assert sum(r.optimizer == "sgd" for r in runs) == 8  # a Sobol sequence halves every axis
    assert all(0.01 <= r.lr <= 0.2 if r.optimizer == "sgd" else 5e-4 <= r.lr <= 1e-2 for r in runs)


def test_studies_share_the_runs_that_they_have_in_common():
    p = page(policies=["crop"])
    both = studies.runs(p, ("01_architectures", "03_augmentation"))
    assert len(both) == 5


def test_a_plan_of_a_thousand_runs_takes_under_a_second():
    began = time.process_time()
    assert len(studies.architectures(page(seeds=200))) == 1000
    assert time.process_time() - began < 1


def test_planning_needs_no_torch():
    code = "import sys; from lwnb.plan import params, studies; studies.runs(params.check({}))"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digits_start_from_another_set_s_weights_without_a_download_of_its_images():
    """CIFAR-100 is 169 MB, and only looked at for near-duplicates."""
    first = studies.transfer(check({"source": "cifar100"}))[0]
    assert (first.dataset, first.source.data_root) == ("cifar100", "data")
    page = {"dataset": "cifar10", "source": "cifar100", "augment": "none", "policies": ["none"]}
    assert studies.transfer(check(page))[0].source.data_root is None
