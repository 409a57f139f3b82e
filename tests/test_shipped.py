"""What ships, as it ships: the files of params/, and the commands of the README."""

import hashlib

import pytest
from trees import by_class, folder

from lwnb.base.places import CHECKOUT
from lwnb.batch import asked, refusals
from lwnb.plan import facts, paramfiles, params, studies, tuned

PAGES = sorted(f.stem for f in (CHECKOUT / "params").glob("*.yaml") if not f.stem.startswith(("budget", "tuned")))

ASKED = {
    "digits": (27, "c4c4101e20c33415"),
    "digits:cpu": (137, "b7632da4c57aaeb5"),
    "cifar10": (27, "d5c82655794e3f6e"),
    "cifar10:cpu": (138, "3ed92701d513d513"),
    "cifar100": (27, "b17e7e31fa3df323"),
    "cifar100:cpu": (138, "7c06e9e26974ea88"),
    "tiny-imagenet:paper": (330, "41dce3eb854aabd8"),
    "cifar10-cpu": (139, "fdb352c3d23a7888"),
    "cifar100-cpu": (57, "2fb85df466798d3b"),
    "tiny-imagenet-cpu": (57, "3d8d3ca15f5f2955"),
    "cifar10-all": (2, "6c6ac44fdec28fa8"),
    "cifar10-long": (5, "f474af26da9c99c0"),
    "pretrain-cifar100": (1, "6dead42be23cf26d"),
    "pretrain-tiny-imagenet": (1, "f4d8f65290f28fee"),
}
"""How many runs the first edition's pages ask for, before any learning rate was tuned,
and the SHA-256 of their sorted keys."""


@pytest.mark.parametrize("page", ASKED)
def test_a_page_asks_for_the_runs_of_the_first_edition(house, monkeypatch, page):
    monkeypatch.setattr(tuned, "FILE", house / "no-tuned.yaml")
    (values,) = paramfiles.pages([page])[0].values()
    keys = sorted(run.key for run in studies.runs(params.check(values)))
    assert (len(keys), hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16]) == ASKED[page]


def test_every_page_is_asked_for():
    assert {page.partition(":")[0] for page in ASKED} | {"folder"} == set(PAGES)


def test_published_pages_stand_on_a_budget_and_a_recipe_that_do_not_move():
    for page in [*facts.PUBLISHED, "pretrain-cifar100", "pretrain-tiny-imagenet"]:
        own = paramfiles.merge([paramfiles.file_of(page)])
        assert (own["budget"], own["recipe"]) == ("cpu-1", 1)


@pytest.mark.parametrize("splits", [("train/", "test/"), ("",)])
@pytest.mark.parametrize("budget", ["quick", "cpu", "paper"])
def test_a_folder_put_into_the_shipped_page_is_used_whole(house, splits, budget):
    """270 images of three classes: as many as none of the project's own data sets has."""
    tree = by_class(*splits, each=90 if len(splits) == 1 else 45, classes=("circle", "ellipse", "square"))
    text = (CHECKOUT / "params" / "folder.yaml").read_text(encoding="utf-8")
    page = house / "shapes.yaml"
    text = text.replace("data/my-images", str(folder(house / "shapes", tree))).replace(
        "budget: quick", f"budget: {budget}"
    )
    page.write_text(text, encoding="utf-8")
    (p,) = asked.pin(paramfiles.pages([str(page)])[0]).values()
    assert (p.pool_train + p.pool_test, p.num_classes) == (270, 3)
    runs = studies.runs(p)
    refusals.refuse(
        [run for run in runs if run.dataset == "folder" and not run.parent]
    )  # the source is published, not here
    assert {run.dataset for run in runs} == {"folder", "cifar100"}
