"""The protocol of device records, their table, other machines' records, and what fits a device."""

import json
import shutil
import socket

import numpy as np
import pandas as pd
import pytest
from planted import plant
from test_params import RUN
from test_results import save
from typer.testing import CliRunner

from lwnb import cli
from lwnb.base.errors import ParamsError
from lwnb.batch import prepare
from lwnb.edge import protocol, runtimes
from lwnb.evidence import choice, deployed
from lwnb.plan.params import check
from lwnb.plan.run import Run
from lwnb.records import costs, folders, machine, publishing, results

CELL = protocol.Cell("squeezenet1_1", 10, 32, 32)


def record(cell=CELL, samples=((1.0, 2.0, 3.0), (2.0, 2.0, 9.0)), machine=None, load=0.0, peak=8.0):
    """A device record with these samples, of this machine or of another."""
    setting = protocol.setting(cell) | ({"machine": machine} if machine else {})
    part = {"other_load": load, "peak_mib": peak, "load_mib": peak, "run_mib": 1.0, "started": "2026-01-01"}
    return {
        "setting": setting,
        "samples_ms": [list(s) for s in samples],
        "size_bytes": 1,
        "processes": [part] * len(samples),
    }


def test_a_process_measures_calls_and_memory():
    order = CELL._asdict() | {"min_calls": 20, "min_seconds": 0.05}
    (found,) = protocol._processes([order])
    assert len(found["samples_ms"]) >= 20 and sum(found["samples_ms"]) >= 45 and min(found["samples_ms"]) > 0
    assert found["peak_mib"] >= found["load_mib"] > 1 and found["run_mib"] >= 0  # 0.7 million weights are 2.8 MiB
    assert socket.gethostname() not in json.dumps(found)


def test_a_failed_process_is_told():
    with pytest.raises(RuntimeError, match="squeezenet1_1 at 32 px on onnxruntime(?s:.*)nowhere.onnx"):
        order = CELL._asdict() | {"runtime": "onnxruntime", "file": "nowhere.onnx", "min_calls": 1, "min_seconds": 0}
        list(protocol._processes([order]))


def test_slow_first_calls_are_warm_up(monkeypatch):
    calls = []
    monkeypatch.setattr(runtimes, "pytorch_eager", lambda threads: lambda cell: calls.append)
    found = runtimes.sample(CELL._asdict() | {"min_calls": 5, "min_seconds": 0})
    assert len(calls) >= 1 + runtimes.WARMUP_CALLS + len(found["samples_ms"]) and len(found["samples_ms"]) == 5


def test_the_table_has_the_median_over_all_processes_and_marks_a_busy_machine(house):
    costs.save_timing(record())
    costs.save_timing(record(CELL._replace(threads=2), load=0.3))
    one, two = costs.timings_table().sort_values("threads").to_dict("records")
    assert (one["latency_ms"], one["calls"], one["processes"], one["busy"]) == (2.0, 6, 2, False)
    assert one["images_per_s"] == 500 and two["busy"] and one["peak_mib"] == 8


def test_what_is_there_is_not_measured_again_unless_by_too_few_processes(house, monkeypatch):
    asked = []

    def fake(orders):
        asked.extend(order["model"] for order in orders)
        return [record()["processes"][0] | {"samples_ms": [1.0]} for _ in orders]

    monkeypatch.setattr(protocol, "_processes", fake)
    other = CELL._replace(model="resnet18")
    protocol.measure_cells([CELL, other], 2)
    assert asked == ["squeezenet1_1", "resnet18"] * 2  # they take turns
    protocol.measure_cells([CELL, other], 2)
    assert len(asked) == 4 and protocol.unmeasured([CELL], 3) == [CELL]


def test_latencies_are_those_of_finished_runs(house):
    run = Run(**RUN)
    save(run, num_classes=10)
    costs.save_timing(record(deployed.eager(run, 10)))
    found = deployed.latencies([run, Run(**RUN | {"seed": 9})])
    assert found["latency_ms"].tolist()[0] == 2.0 and np.isnan(found["latency_ms"][1])
    assert found["device"][0] == machine.device(machine.machine())


def test_for_published_runs_nothing_is_measured_and_the_device_with_records_is_named(house, monkeypatch):
    run, board = Run(**RUN), {"cpu": "Raspberry Pi 5", "cores": 4}
    publishing.publish_runs([save(run, num_classes=10)])
    shutil.rmtree(folders.folder(run))
    costs.save_timing(record(deployed.eager(run, 10), machine=board))
    monkeypatch.setattr(protocol, "_processes", lambda orders: pytest.fail("measured"))
    monkeypatch.setattr(prepare, "_side_by_side", lambda *stages: pytest.fail("exported"))
    prepare.prepare(check({}), [run])
    prepare.time_eager([run])
    (row,) = deployed.latencies([run]).to_dict("records")
    assert row == {"key": run.key, "latency_ms": 2.0, "device": "Raspberry Pi 5, 4 cores"}


def test_the_noise_is_the_spread_of_the_same_cell_and_what_lies_within_it_is_equal(house):
    for repeat, value in enumerate((1.0, 1.02, 1.05, 1.0, 1.1)):
        costs.save_timing(record(CELL._replace(repeat=repeat), [[value]]))
    assert deployed.noise(costs.timings_table())["noise"].tolist() == pytest.approx([0.1 / 1.02])
    assert deployed.levelled(pd.Series({"a": 1.0, "b": 1.05, "c": 1.2}), 0.1).tolist() == [1.0, 1.0, 1.2]


def test_records_of_another_machine_stand_beside_ones_own(house, tmp_path):
    costs.save_timing(record())
    board = {"cpu": "Raspberry Pi 5", "cores": 4}
    file = tmp_path / "board.json"
    file.write_text(json.dumps({"lwnb_device_records": 1, "records": [record(machine=board)]}))
    assert costs.read_file(file) == (1, {"Raspberry Pi 5, 4 cores"})
    assert len(set(costs.timings_table()["device"])) == 2
    assert costs.write_file(tmp_path / "own.json") == 1  # this machine's alone
    file.write_text(json.dumps({"lwnb_device_records": 1, "records": [record(), {"setting": {}}]}))
    with pytest.raises(ParamsError, match="no file of device records"):
        costs.read_file(file)


def test_a_runtime_that_is_not_installed_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnx" else object())
    with pytest.raises(
        ParamsError, match=r"onnxruntime needs onnx: not installed here; try: pip install \"lwnb\[edge\]\""
    ):
        protocol.require(["onnxruntime"])
    assert protocol.usable(check({})) == [] and {cell.runtime for cell in protocol.cells(check({}))} == {
        "pytorch-eager"
    }


@pytest.fixture
def two(house):
    """Two networks with INT8 files: a small one that is right on half of the images, a large one that is always right."""
    for model, right, size, latency in (("squeezenet1_1", 0.5, 1e6, 0.5), ("resnet18", 1.0, 4e7, 5.0)):
        labels = np.arange(100) % 2
        guesses = np.where(np.arange(100) < 100 * right, labels, 1 - labels)
        run, arrays = (
            Run(**RUN | {"model": model}),
            {"labels": labels, "top5": np.stack([guesses, 1 - guesses], axis=1)},
        )
        from test_results import ENVIRONMENT, HISTORY, METRICS

        metrics = METRICS | {
            "top1": right,
            "val_top1": right,
            "n_test": 100,
            "num_classes": 10,
            "macs": 1e6,
            "size_bytes": size,
        }
        kept = results.save(run, metrics, HISTORY, arrays, ENVIRONMENT, b"")
        row = {
            "runtime": "onnxruntime",
            "precision": "int8",
            "size_bytes": size,
            "top1": right,
            "agree": 1.0,
            "error": 0.0,
        }
        results.save_conversions(kept, [row | {"predictions": guesses.tolist()}])
        cell = protocol.Cell(model, 10, run.image_size, run.output_stride, "onnxruntime", "int8")
        costs.save_timing(record(cell, [[latency]]))
        costs.save_footprint(
            {"model": model, "num_classes": 10, "image_size": run.image_size, "output_stride": run.output_stride},
            {"planned_bytes": 2**20},
        )
    return Run(**RUN).dataset


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
