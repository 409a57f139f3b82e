"""What fits a device, and what nothing may be said of."""

import numpy as np
from planted import plant
from typer.testing import CliRunner

from lwnb import cli
from lwnb.base.errors import ParamsError
from lwnb.evidence import choice
from lwnb.records import costs, machine, results


def chosen(dataset, device, **limits):
    found = choice.candidates(choice.records_of(dataset), device)
    return choice.choose(found, choice.Limits(**limits)).to_dict("records")


def test_what_fits_is_ranked_and_the_others_have_their_reason(two):
    here = machine.device(machine.machine())
    first, second = chosen(two, here)
    assert (first["model"], first["verdict"], second["behind"][:6]) == ("resnet18", "fits", "-0.500")
    first, second = chosen(two, here, max_size_mb=3, max_latency_ms=1)
    assert first["model"] == "squeezenet1_1" and first["memory_is"] == "measured peak"
    assert second["why"] == "size 40 MB, limit 3; latency 5 ms, limit 1"
    assert all(row["verdict"] == "does not fit" for row in chosen(two, here, max_latency_ms=0.1))


def test_a_network_is_one_row_with_what_its_file_takes(two):
    found = choice.shipped(choice.candidates(choice.records_of(two), machine.device(machine.machine()))).set_index(
        "model"
    )
    assert found.loc["resnet18", ["int8_mb", "int8_ms", "int8_top1"]].tolist() == [40, 5, 1.0]
    assert found.loc["squeezenet1_1", "int8_top1"] == 0.5 and found["fp32_ms"].isna().all()
    assert choice.shipped(choice.candidates([], "phone")).empty


def test_no_latency_of_this_machine_stands_for_another_device(two):
    rows = chosen(two, "STM32F746", max_latency_ms=10)
    assert all(row["verdict"] == "cannot be said" and "latency not measured" in row["why"] for row in rows)
    (row, _) = chosen(two, "STM32F746", max_memory_mib=2)
    assert np.isnan(row["latency_ms"]) and row["memory_mib"] == 1 and row["memory_is"].startswith("planned")


def test_recommend_answers_on_the_command_line(two):
    done = CliRunner().invoke(cli.app, ["recommend", "--dataset", two, "--max-size-mb", "3"])
    assert done.exit_code == 0 and "fits" in done.output and "size 40 MB, limit 3" in done.output
    done = CliRunner().invoke(cli.app, ["recommend", "--dataset", two, "--device", "phone", "--max-latency-ms", "5"])
    assert "latency not measured" in done.output and " ms, limit" not in done.output
    assert isinstance(CliRunner().invoke(cli.app, ["recommend", "--dataset", "nothing"]).exception, ParamsError)
    assert "--max-size-mb" in str(
        CliRunner().invoke(cli.app, ["recommend", "--dataset", two, "--max-size-mb", "-1"]).exception
    )


def test_what_is_no_better_than_a_guess_fits_nowhere(house):
    """Three classes and top-1 0.36; and of a network that learned, an INT8 file that knows one class alone."""
    labels = np.arange(300) % 3
    plant(0.36, n=300, labels=labels, model="squeezenet1_1")
    fine = plant(0.9, n=300, labels=labels)
    row = {"runtime": "onnxruntime", "precision": "int8", "size_bytes": 1, "top1": 1 / 3, "agree": 0.3, "error": 1.0}
    rows = [row | {"predictions": [0] * 300}]
    rows += [row | {"precision": "fp32", "top1": 0.9, "predictions": fine.predictions["top5"][:, 0].tolist()}]
    results.save_conversions(fine, rows)
    found = {(row["model"], row["precision"]): row for row in chosen("cifar10", "phone")}
    assert {name: row["verdict"] for name, row in found.items()} == {
        ("resnet18", "fp32"): "fits",
        ("resnet18", "int8"): "does not fit",
        ("squeezenet1_1", "fp32"): "does not fit",
    }
    assert "0.360" in found["squeezenet1_1", "fp32"]["why"] and "0.333" in found["resnet18", "int8"]["why"]
    timings = costs.timings_table()
    assert set(choice.for_budgets([results.find(fine.run)], "phone", timings)["choice"].str[:13]) <= {
        "ResNet18 fp32",
        "none of 1; th",
    }
    assert choice.for_budgets([], "phone", timings)["top1"].isna().all()


def test_unequal_classes_are_told_beside_top1_on_the_command_line(house):
    labels = np.maximum(0, np.arange(2000) // 50 - 30)  # 1,550 of 2,000 are of class 0
    plant(0.9, labels=labels)
    done = CliRunner().invoke(cli.app, ["recommend", "--dataset", "cifar10"])
    assert done.exit_code == 0 and "0.775" in done.output and "macro F1" in done.output


def test_the_budgets_of_the_book_have_sources_and_answers(two):
    timings = costs.timings_table()
    found = choice.for_budgets(choice.records_of(two), machine.device(machine.machine()), timings)
    assert found["source"].str.len().min() > 5 and found["choice"].iloc[-1].startswith("ResNet18")


def test_where_nothing_fits_the_closest_is_named(two, monkeypatch):
    """Not the more accurate one, which is forty times as far from it."""
    small = choice.Budget(budget="small", source="here", max_size_mb=0.5, max_memory_mib=64)
    monkeypatch.setattr(choice, "budgets", lambda: [small])
    found = choice.for_budgets(choice.records_of(two), machine.device(machine.machine()), costs.timings_table())
    assert (
        found["choice"]
        .item()
        .startswith("none of 2; the closest is SqueezeNet 1.1 int8, onnxruntime: size 1 MB, limit 0.5")
    )


def test_sliders_answer_as_they_move(two):
    from lwnb.report.explore import Explorer

    here = machine.device(machine.machine())
    shown = Explorer(choice.candidates(choice.records_of(two), here), here)
    assert "2 of 2 fit" in shown.head.value and "ResNet18" in shown.head.value
    shown.sliders["max_size_mb"].value = 3
    assert "1 of 2 fit" in shown.head.value and "SqueezeNet" in shown.head.value
