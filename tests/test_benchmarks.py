"""The benchmark is fair and honest: every side does the same work, a kill costs one job,
the figures are those planted."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks import plan, sides, store, tables
from benchmarks.__main__ import main
from lwnb.data import sets
from lwnb.networks import build

MODEL = "squeezenet1_1"


def tiny():
    """64 digits, of which 10 validate: 54 train in batches of 16, so 3 steps an epoch, and 6 in all."""
    page = plan.page_of("digits", None, train_size=64, batch_size=16)
    return plan.run_of(page, MODEL, seed=1, epochs=2, test_size=40)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each side did with the tiny run: first weights, rates by step, images that it evaluated, result."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LWNB_HOME", str(tmp_path_factory.mktemp("home")))
        for name in ("script", "script-tuned", "timm", "lightning", "lwnb"):
            if name != "timm" or pytest.importorskip("timm", reason="timm is the extra `bench`"):
                found[name] = observe(sides.SIDES[name])
    return found


def observe(side) -> dict:
    rates, start, images, logits = [], [], [], []

    def network(module, inputs, output):
        if module.__class__.__name__ == "SqueezeNet" and output.device.type != "meta":  # shapes alone: MACs
            if module.training and not start:
                start.extend(p.detach().clone() for p in module.parameters())
            elif not module.training:
                images.append(inputs[0].clone())
                logits.append(output.clone())

    hooks = [
        register_module_forward_hook(network),
        register_optimizer_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])),
    ]
    try:
        result = side(tiny())
    finally:
        for hook in hooks:
            hook.remove()
    last = {"images": torch.cat(images)[-40:], "logits": torch.cat(logits)[-40:]}
    return {"rates": rates, "start": start, "result": result, "evaluated": len(torch.cat(images))} | last


@pytest.mark.slow
def test_every_side_starts_from_the_same_weights(seen):
    wanted = list(build.build(MODEL, 10, 32, seed=1).parameters())
    for name, one in seen.items():
        assert all(torch.equal(a, b) for a, b in zip(one["start"], wanted, strict=True)), name


@pytest.mark.slow
def test_every_side_makes_the_same_steps_at_the_same_rate(seen):
    """Worked by hand: three steps of warm-up, then half a cosine over three;
    timm's warm-up rises from a third to one."""
    for name, one in seen.items():
        warm = [1 / 3, 5 / 9, 7 / 9] if name == "timm" else [1 / 3, 2 / 3, 1]
        assert one["rates"] == pytest.approx([0.001 * share for share in [*warm, 1, 0.75, 0.25]]), name
        assert one["result"]["images"] == 48 and len(one["result"]["epoch_seconds"]) == 2


@pytest.mark.slow
def test_every_side_tests_on_the_same_images(seen, tmp_path, monkeypatch):
    monkeypatch.setenv("LWNB_HOME", str(tmp_path))
    labels = sets.task(tiny()).test.labels
    for name, one in seen.items():
        level = 1 / 255 / 0.224  # one grey level after normalisation: the sides enlarge with other libraries
        assert (one["images"] - seen["script"]["images"]).abs().max() <= 1.01 * level, name
        assert one["result"]["top1"] == pytest.approx((one["logits"].argmax(1) == labels).double().mean().item()), name
        assert one["evaluated"] >= 10 * 2 + 40, "each epoch the validation split, at the end the test split"


def test_no_side_always_comes_first():
    page = plan.page_of("digits", None)
    jobs = plan.compare(plan.Wish(page, [MODEL], ["script", "lwnb"], ["compare"], seeds=4))
    assert [job["side"] for job in jobs] == ["script", "lwnb", "lwnb", "script"] * 2
    assert len({store.key(job) for job in jobs}) == 8


def test_only_networks_that_bf16_helps_run_in_bf16():
    wish = plan.Wish(
        plan.page_of("digits", None), ["mobilenet_v3_small", "resnet18"], ["lwnb", "lwnb-bf16"], ["compare"], 1
    )
    runs = [(job["runs"][0]["model"], job["runs"][0]["precision"]) for job in plan.compare(wish)]
    assert runs == [("mobilenet_v3_small", "fp32"), ("resnet18", "fp32"), ("resnet18", "bf16")]


@pytest.mark.parametrize("torn", ['{"job": {"n": 2}, "wall', '{"job": {"n": 2}, "wall_s": 2', ""])
def test_a_torn_last_line_costs_one_job(tmp_path, torn):
    file = tmp_path / "bench" / "results.jsonl"
    store.append(file, {"n": 1}, {"wall_s": 1.0})
    with file.open("a") as stream:
        stream.write(torn)
    assert list(store.read(file)) == [store.key({"n": 1})]
    store.append(file, {"n": 2}, {"wall_s": 3.0})
    assert [row["wall_s"] for row in store.read(file).values()] == [1.0, 3.0]


def planted(ratio: dict[str, float]) -> pd.DataFrame:
    """Three seeds of two sides: (d) takes 10, 20 and 30 s, (a) so many times longer, and in one seed twice that."""
    rows = [
        {"model": model, "side": side, "seed": seed, "precision": "fp32", "wall_s": seconds * times}
        for model, wanted in ratio.items()
        for seed, seconds in enumerate((10.0, 20.0, 30.0))
        for side, times in (("lwnb", 1.0), ("script", wanted * (2 if seed == 2 else 1)))
    ]
    return pd.DataFrame(rows)


def test_geometric_mean_of_planted_ratios():
    mean, count = tables.geometric_mean(planted({"one": 2.0, "two": 8.0}))
    assert (mean, count) == (pytest.approx(4.0), 2)  # sqrt(2 x 8), the seed that was disturbed left aside by the median
    assert tables.last_line(planted({"one": 2.0, "two": 8.0})).endswith(
        "of 2 networks, whole job, (a) / (d) fp32: 4.00x"
    )
    only = planted({"one": 2.0})
    assert math.isnan(tables.geometric_mean(only[only["side"] == "script"])[0])


@pytest.mark.parametrize(
    ("ours", "theirs", "equal"),
    [
        ([0.980, 0.982, 0.981, 0.979, 0.983], [0.981, 0.980, 0.982, 0.983, 0.979], True),
        ([0.980, 0.982, 0.981, 0.979, 0.983], [0.965, 0.967, 0.966, 0.964, 0.968], False),  # 1.5 points apart
        ([0.95, 0.99, 0.97], [0.99, 0.95, 0.97], False),  # the same mean, but the seeds say too little
        ([0.98], [0.98], False),
        ([0.98, 0.98], [0.98, 0.98], False),
    ],
)
def test_equality_is_said_only_where_it_is_shown(ours, theirs, equal):
    verdict = tables.equality(np.array(ours), np.array(theirs))
    assert verdict.startswith("equal within 1 point") == equal and ("equality not shown" in verdict) != equal


@pytest.mark.slow
def test_a_page_that_names_its_budget_brings_it_along():
    assert plan.run_of(plan.page_of("cifar10-all", None), MODEL).lr == 2.0e-3  # as params/budget-cpu.yaml says


def test_a_job_is_the_same_wherever_its_images_lie(tmp_path):
    here, there = ({"part": "compare", "source": {"dataset": "cifar10", "data_root": root}} for root in ("a", None))
    store.append(tmp_path / "results.jsonl", here, {"wall_s": 1.0})
    assert store.read(tmp_path / "results.jsonl")[store.key(there)]["job"] == there


@pytest.mark.slow
def test_one_command_compares_and_a_second_one_trains_nothing(house, capfd):
    wanted = {"parts": "compare", "sides": "script,lwnb", "seeds": 1, "models": MODEL}
    for jobs in (3, 0):  # the machine itself is the third
        main(**wanted, train_size=64, batch_size=16, epochs=2, fresh=False)
        said = capfd.readouterr()
        assert len(re.findall(r"^\[\d/\d\] ", said.err, re.MULTILINE)) == jobs
        last = said.out.strip().splitlines()[-1]
        assert re.fullmatch(r"geometric mean of 1 network, whole job, \(a\) / \(d\) fp32: \d+\.\d\dx", last)
    assert "equality not shown: one seed" in said.out
    assert [p.name for p in (house / "build" / "bench").iterdir()] == ["results.jsonl"]
    assert not (house / "runs").exists()


def test_what_one_more_run_costs_is_the_slope():
    """Worked by hand: 5 s of start and 4 s a run, against 9 s and 2 s."""
    wall = {(1, 2): 13.0, (1, 12): 53.0, (2, 2): 13.0, (2, 12): 33.0}
    rows = [{"model": "x", "workers": w, "threads": 1, "runs": n, "wall_s": s} for (w, n), s in wall.items()]
    assert tables.throughput(pd.DataFrame(rows))[["one_more_s", "gain"]].values.tolist() == [[4, 1], [2, 2]]


def test_growth_goes_beyond_what_the_page_has():
    wish = plan.Wish(plan.page_of("digits", None), [MODEL], ["lwnb"], ["images"], repeats=1)
    assert [job["runs"][0]["train_size"] for job in plan.growth(wish, "images")] == [1000] * 2 + [10000] * 2 + [
        50000
    ] * 2
