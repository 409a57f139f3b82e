"""Verdicts against planted records: each rule holds, fails and stays open where it should, and says why."""

import json

import pytest
from planted import RISING, frame, plant

from lwnb.base.errors import ParamsError
from lwnb.evidence import claims, rules
from lwnb.evidence.arms import Evidence, describe
from lwnb.evidence.claims import FAILS, HOLDS, OPEN, Claim
from lwnb.plan import studies
from lwnb.plan.params import check
from lwnb.records import results
from lwnb.report import words

CIFAR = check({"dataset": "cifar10", "augment": "none", "policies": ["none"], "source": "imagenet"})
MORE = {
    "id": "X", "statement": "One beats the other.", "source": "somewhere", "study": "01_architectures",
    "rule": "better",
    "group": {"model": "resnet18"}, "rivals": [{"model": "squeezenet1_1"}], "seeds": 3, "datasets": ["cifar10"],
}  # fmt: skip


def claim(**changes):
    return Claim(**MORE | changes)


def trained(model, *hits, **fields):
    return [plant(h, seed=s, split_seed=s, model=model, **fields) for s, h in enumerate(hits)]


def verdict(c, records, p=CIFAR, **columns):
    known = frame([record for record in results.every() if record.metrics["learned"]])
    learned = {record.run.key: record for record in records if record.metrics["learned"]}
    found = Evidence(frame(records).assign(**columns), learned, known)
    (one,) = claims.judge([c], {"page": p}, {"page": {c.study: found}})
    return one


def says(text, *facts):
    """Whether a text has these names and numbers, whatever else it says."""
    return all(fact in text for fact in facts)


def why(found, *facts):
    """Whether one of the reasons of an open verdict has these names and numbers."""
    return found.verdict == OPEN and any(says(reason, *facts) for reason in found.reasons)


RESNET, SQUEEZE = (0.80, 0.81, 0.80), (0.76, 0.77, 0.765)


def test_a_planted_winner_holds_and_the_same_results_swapped_do_not(house):
    one = verdict(claim(), trained("resnet18", *RESNET) + trained("squeezenet1_1", *SQUEEZE))
    assert one.verdict == HOLDS and one.reasons == [] and len(one.keys) == 6
    assert says(one.numbers, "ResNet18", "SqueezeNet 1.1", "+0.038", "95 %", "2,000")
    two = verdict(claim(), trained("resnet18", *SQUEEZE, lr=0.2) + trained("squeezenet1_1", *RESNET, lr=0.2))
    assert two.verdict == FAILS and "-0.038" in two.numbers


def test_a_margin_decides(house):
    records = trained("resnet18", *RESNET) + trained("squeezenet1_1", *SQUEEZE)
    assert verdict(claim(margin=0.01), records).verdict == HOLDS
    assert verdict(claim(margin=0.10), records).verdict == FAILS
    between = verdict(claim(margin=0.04), records)
    assert why(between, "0.04") and len(between.reasons) == 1


@pytest.mark.parametrize(
    ("planted", "changes", "p", "facts"),
    [
        ({}, {"datasets": ["cifar100"]}, CIFAR, ["CIFAR-100", "CIFAR-10"]),
        ({}, {"pretrained": "imagenet"}, CIFAR.model_copy(update={"source": "classes"}), ["`classes`", "ImageNet"]),
        ({"curve": RISING}, {}, CIFAR, ["curve", "ResNet18"]),
        ({"metrics": {"learned": False}}, {}, CIFAR, ["no result", "ResNet18"]),
        ({}, {"tuned": True}, CIFAR, ["tuned", "0.1", "ResNet18", "SqueezeNet 1.1"]),
        ({}, {"seeds": 4}, CIFAR, ["3", "4", "ResNet18", "SqueezeNet 1.1"]),
    ],
)
def test_weak_evidence_is_not_decidable_and_the_reason_is_named(house, planted, changes, p, facts):
    records = trained("resnet18", *RESNET, **planted) + trained("squeezenet1_1", *SQUEEZE)
    found = verdict(claim(**changes), records, p)
    assert why(found, *facts), found.reasons


def test_one_seed_where_three_are_needed_is_not_decidable(house):
    found = verdict(claim(), trained("resnet18", 0.8) + trained("squeezenet1_1", 0.7))
    assert why(found, "1", "3", "ResNet18", "SqueezeNet 1.1")
    assert "+0.100" in found.numbers  # the numbers stand all the same


def test_a_learning_rate_must_lie_inside_those_tried_and_be_the_best_of_them(house):
    c, rivals = claim(tuned=True), trained("squeezenet1_1", *SQUEEZE)
    for lr in (0.05, 0.2):
        trained("squeezenet1_1", 0.5, lr=lr)
    records = trained("resnet18", *RESNET) + rivals
    trained("resnet18", 0.5, lr=0.05)
    assert why(verdict(c, records), "edge", "0.05 to 0.1", "ResNet18")
    trained("resnet18", 0.5, lr=0.2)
    assert verdict(c, records).verdict == HOLDS
    trained("resnet18", 0.95, lr=0.15)
    (reason,) = verdict(c, records).reasons
    assert says(reason, "ResNet18") and "SqueezeNet" not in reason


def test_rates_tried_with_one_seed_are_compared_on_that_seed(house):
    records = trained("resnet18", 0.81, 0.80, 0.80) + trained("squeezenet1_1", *SQUEEZE)
    for lr in (0.05, 0.2):  # for the first seed less than the chosen rate, and more than its mean over three
        trained("resnet18", 0.807, lr=lr)
        trained("squeezenet1_1", 0.5, lr=lr)
    assert verdict(claim(tuned=True), records).verdict == HOLDS


def test_every_rival_must_lose_and_one_that_wins_is_enough(house):
    both = claim(rivals=[{"model": "squeezenet1_1"}, {"model": "shufflenet_v2_x1_0"}])
    records = trained("resnet18", *RESNET) + trained("squeezenet1_1", *SQUEEZE)
    missing = verdict(both, records)
    assert why(missing, "ShuffleNetV2 ×1.0") and len(missing.reasons) == 1
    assert "97.5 %" in missing.numbers
    assert verdict(both, records + trained("shufflenet_v2_x1_0", *SQUEEZE)).verdict == HOLDS
    won = trained("shufflenet_v2_x1_0", 0.9, 0.91, 0.9, lr=0.3)
    assert verdict(both, trained("resnet18", *RESNET) + won).verdict == FAILS  # though SqueezeNet is missing


def test_sides_without_a_common_seed_or_tuned_with_unequal_effort_are_not_compared(house):
    lonely = verdict(claim(seeds=1), [plant(0.9, seed=1), plant(0.8, seed=2, model="squeezenet1_1")])
    assert why(lonely, "ResNet18", "SqueezeNet 1.1", "seed") and len(lonely.reasons) == 1
    c = claim(study="04_hyperparameters", group={"schedule": "cosine"}, rivals=[{"schedule": "constant"}], tuned=True)
    many = [r for lr, h in ((0.1, 0.7), (0.2, 0.9), (0.3, 0.7)) for r in trained("resnet18", h, h, h, lr=lr)]
    few = [
        r
        for lr in (0.1, 0.2, 0.3)
        for r in trained("resnet18", *[0.6 + (lr == 0.2) / 10] * 3, lr=lr, schedule="constant")
    ]
    assert verdict(c, many + few).verdict == HOLDS
    assert why(verdict(c, many + few[:6]), "3", "cosine", "2", "constant")


def test_validation_chooses_among_settings_and_equals_stay_open(house):
    group = [*trained("resnet18", *RESNET, lr=0.2), *trained("resnet18", 0.9, 0.9, 0.9, lr=0.3, val_top1=0.1)]
    found = verdict(claim(), group + trained("squeezenet1_1", 0.80, 0.79, 0.81))
    assert found.verdict == OPEN and set(found.keys).isdisjoint(record.run.key for record in group[3:])


def test_sooner_counts_epochs_to_the_rivals_best(house):
    c = claim(
        rule="sooner", study="02_transfer", group={"arm": "fine-tuned"}, rivals=[{"arm": "from scratch"}], margin=1.25
    )
    slow = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.7, 0.7, 0.7)  # its best at epoch 7
    quick = (0.3, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8)  # there at epoch 2
    later = (0.1, *quick[:-1])  # at epoch 3
    scratch = trained("resnet18", *SQUEEZE, curve=slow)
    tuned = [plant(0.8, seed=s, split_seed=s, curve=e, weights="imagenet") for s, e in enumerate((quick, quick, later))]
    found = verdict(c, tuned + scratch)  # 7/2, 7/2 and 7/3 times: geometric mean 3.06
    assert found.verdict == HOLDS and says(found.numbers, "3.06", "3 seeds")
    turned = trained("resnet18", *RESNET, curve=slow, lr=0.2, weights="imagenet")
    scratch = [plant(0.8, seed=s, split_seed=s, curve=e, lr=0.2) for s, e in enumerate((quick, quick, later))]
    assert verdict(c, turned + scratch).verdict == FAILS
    same = verdict(c, tuned[:2] + trained("resnet18", *SQUEEZE, curve=slow)[:2])
    assert why(same, "spread")


def test_the_run_that_pretrains_a_source_is_no_arm_of_the_comparison(house):
    """It has the same network, images and start as the arm from scratch, and was tested on other classes."""
    p = check({"source_train_size": 400, "transfer_sizes": [400]})
    source, *target = studies.transfer(p)
    frame = claims.evidence(p)["02_transfer"].frame
    assert set(frame["key"]) == {run.key for run in target} and source.key not in set(frame["key"])


def test_a_gain_is_compared_over_pages(house):
    c = claim(
        rule="widest", study="02_transfer", group={"arm": "fine-tuned"}, rivals=[{"arm": "from scratch"}],
        datasets=["tiny-imagenet"], against=["cifar10", "cifar100"],
    )  # fmt: skip
    gains = {"tiny-imagenet": (0.30, 0.31, 0.29), "cifar10": (0.10, 0.11, 0.09), "cifar100": (0.2, 0.21, 0.19)}

    def judge(gains):
        found, pages = {}, {}
        for dataset, by_seed in gains.items():
            scratch = trained("resnet18", 0.5, 0.5, 0.5, dataset=dataset)
            tuned = trained("resnet18", *(0.5 + gain for gain in by_seed), dataset=dataset, weights="imagenet")
            records = {record.run.key: record for record in scratch + tuned}
            found[dataset] = {"02_transfer": Evidence(frame(scratch + tuned), records, frame([]))}
            pages[dataset] = CIFAR.model_copy(update={"dataset": dataset})
        (one,) = claims.judge([c], pages, found)
        return one

    assert judge(gains).verdict == HOLDS and judge(gains).page == ""
    assert judge(gains | {"cifar100": (0.4, 0.41, 0.39)}).verdict == FAILS
    del gains["cifar100"]
    assert why(judge(gains), "cifar100") and len(judge(gains).reasons) == 1


COST = {"rule": "lowest", "column": "latency_ms", "margin": 0.1, "datasets": [], "seeds": 1}


@pytest.mark.parametrize(
    ("own", "rival", "expected"), [(1.0, 2.0, HOLDS), (2.0, 1.0, FAILS), (1.0, 1.05, OPEN), (None, 1.0, OPEN)]
)
def test_the_lowest_cost_by_more_than_a_margin(house, own, rival, expected):
    records = trained("resnet18", 0.5) + trained("squeezenet1_1", 0.5)
    assert verdict(claim(**COST), records, latency_ms=[own, rival]).verdict == expected


def test_a_cost_that_no_record_holds_is_not_decidable(house):
    records = trained("resnet18", 0.5) + trained("squeezenet1_1", 0.5)
    found = verdict(claim(**COST | {"column": "cuda_peak_memory_mib"}), records)
    assert why(found, "peak CUDA memory, MiB") and len(found.reasons) == 1
    two = claim(**COST | {"also": ["latency_2_threads_ms"]})
    assert verdict(two, records, latency_ms=[1.0, 2.0]).verdict == OPEN  # the second setting is missing
    assert verdict(two, records, latency_ms=[2.0, 1.0]).verdict == FAILS  # the first refutes it already


def test_an_order_that_turns_over_is_found_and_one_that_does_not_refutes(house):
    c = claim(**COST | {"rule": "swapped", "rivals": "others", "group": {"model": "mobilenet_v3_small"}})
    names = ("mobilenet_v3_small", "shufflenet_v2_x1_0", "squeezenet1_1", "resnet18", "efficientnet_v2_s")
    five = [plant(model=model) for model in names]
    turned = verdict(c, five, latency_ms=[5.0, 3.0, 1.0, 6.0, 9.0])
    assert turned.verdict == HOLDS
    assert says(turned.numbers, "MobileNetV3-Small", "SqueezeNet 1.1", "MACs", "5.00", "latency")
    assert verdict(c, five, latency_ms=[1.0, 2.0, 3.0, 4.0, 5.0]).verdict == FAILS
    assert verdict(c, five[:3], latency_ms=[1.0, 2.0, 3.0]).verdict == OPEN


def test_balance_depends_on_its_weights(house):
    c = {"rule": "balance", "weights": {"top1": 1, "macs": 1}}
    records = trained("resnet18", 0.9, 0.9, 0.9) + trained("squeezenet1_1", 0.8, 0.8, 0.8)
    three = [{"model": "squeezenet1_1"}, {"model": "efficientnet_v2_s"}]
    records += trained("efficientnet_v2_s", 0.91, 0.91, 0.91)
    assert verdict(claim(**c, rivals=three), records).verdict == HOLDS  # nearly the best top-1, and not the most MACs
    only = {"rule": "balance", "weights": {"top1": 0, "macs": 1}}
    assert verdict(claim(**only, rivals=three), records).verdict == FAILS
    assert says(verdict(claim(**only, rivals=three), records).numbers, "top-1 0", "MACs 1")


def test_preferred_and_rejected_are_chosen_on_validation_and_judged_on_test(house):
    c = claim(study="04_hyperparameters", group={"batch_size": "preferred"}, rivals=[{"batch_size": "rejected"}])
    large = trained("resnet18", *RESNET, batch_size=128, val_top1=0.5)
    small = trained("resnet18", *SQUEEZE, batch_size=32, val_top1=0.9)
    found = verdict(c, large + small)
    assert found.verdict == FAILS and says(found.numbers, "batch size 32", "batch size 128", "-0.038")


def test_mixing_is_compared_with_the_same_policy_without_it(house):
    p = check(
        {
            "dataset": "cifar10",
            "augment": "none",
            "policies": ["none", "crop", "crop+mixup"],
            "augment_model": "resnet18",
        }
    )
    c = claim(study="03_augmentation", group={"mixing": "none"}, rivals=[{"mixing": "mixup"}], same="base", seeds=1)
    for run, hits in zip(studies.augmentation(p), (0.95, 0.8, 0.7), strict=True):
        plant(hits, **{k: v for k, v in run.model_dump().items() if k != "epochs"})
    runs = [record.run for record in results.every()]
    records = {run.key: results.find(run) for run in runs}
    found = claims.evidence(p)["03_augmentation"]
    assert set(found.frame["base"]) == {"none", "crop"}
    found = Evidence(
        frame(records.values()).merge(found.frame[["augment", "mixing", "base"]], on="augment"), records, frame([])
    )
    (one,) = claims.judge([c], {"page": p}, {"page": {c.study: found}})
    assert one.verdict == HOLDS and says(one.numbers, "no mixing", "mixup", "+0.100")


# --- The claims of the book ---


def test_the_claims_of_the_book_are_there_with_their_sources():
    every = claims.stated()
    assert {"C1a", "C2", "C3", "C4a", "C4b", "F1a", "F2a", "F2b", "F3a", "H1", "H2", "G1", "G2"} <= {
        c.id for c in every
    }
    assert len({c.id for c in every}) == len(every) and all("arXiv" in c.source for c in every)
    assert all(c.rule == "swapped" or describe(c.group) in words.rule_in_words(c) for c in every)
    assert all(c.rule in rules.RULES or c.rule == "widest" for c in every)


def test_with_no_run_at_all_no_claim_is_decided(house):
    p = check({})
    found = claims.judge(claims.stated(), {"digits": p}, {"digits": claims.evidence(p)})
    assert {one.verdict for one in found} == {OPEN} and all(one.reasons for one in found)
    table = words.verdicts_table(found, {"digits": "Digits"})
    assert len(table) == len(claims.stated()) and set(table["Digits"]) == {OPEN}
    said = words.verdicts(found)
    assert all(c.id in said and c.statement in said for c in claims.stated())


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"rule": "bigger"}, "claim X: .*rule"),
        ({"colour": "red"}, "claim X: .*colour"),
        ({"study": "07_other"}, "allowed are 01_architectures"),
        ({"datasets": ["mnist"]}, "claim X: .*datasets"),
    ],
)
def test_a_claim_that_cannot_be_is_named(tmp_path, entry, fault):
    file = tmp_path / "claims.yaml"
    file.write_text(json.dumps([MORE | entry]))
    with pytest.raises(ParamsError, match=f"(?s){fault}"):
        claims.stated(file)
