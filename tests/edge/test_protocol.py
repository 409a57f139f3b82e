"""The protocol of device records, their table, and other machines' records."""

import json
import shutil
import socket

import numpy as np
import pandas as pd
import pytest
from planted import RUN, save, timing

from lwnb.base.errors import ParamsError
from lwnb.batch import prepare
from lwnb.edge import protocol, runtimes
from lwnb.evidence import deployed
from lwnb.plan.params import check
from lwnb.plan.run import Run
from lwnb.records import costs, folders, machine, publishing

CELL = protocol.Cell("squeezenet1_1", 10, 32, 32)


@pytest.mark.slow
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
    costs.save_timing(timing(CELL))
    costs.save_timing(timing(CELL._replace(threads=2), load=0.3))
    one, two = costs.timings_table().sort_values("threads").to_dict("records")
    assert (one["latency_ms"], one["calls"], one["processes"], one["busy"]) == (2.0, 6, 2, False)
    assert one["images_per_s"] == 500 and two["busy"] and one["peak_mib"] == 8


def test_what_is_there_is_not_measured_again_unless_by_too_few_processes(house, monkeypatch):
    asked = []

    def fake(orders):
        asked.extend(order["model"] for order in orders)
        return [timing(CELL)["processes"][0] | {"samples_ms": [1.0]} for _ in orders]

    monkeypatch.setattr(protocol, "_processes", fake)
    other = CELL._replace(model="resnet18")
    protocol.measure_cells([CELL, other], 2)
    assert asked == ["squeezenet1_1", "resnet18"] * 2  # they take turns
    protocol.measure_cells([CELL, other], 2)
    assert len(asked) == 4 and protocol.unmeasured([CELL], 3) == [CELL]


def test_latencies_are_those_of_finished_runs(house):
    run = Run(**RUN)
    save(run, num_classes=10)
    costs.save_timing(timing(deployed.eager(run, 10)))
    found = deployed.latencies([run, Run(**RUN | {"seed": 9})])
    assert found["latency_ms"].tolist()[0] == 2.0 and np.isnan(found["latency_ms"][1])
    assert found["device"][0] == machine.device(machine.machine())


def test_for_published_runs_nothing_is_measured_and_the_device_with_records_is_named(house, monkeypatch):
    run, board = Run(**RUN), {"cpu": "Raspberry Pi 5", "cores": 4}
    publishing.publish_runs([save(run, num_classes=10)])
    shutil.rmtree(folders.folder(run))
    costs.save_timing(timing(deployed.eager(run, 10), machine=board))
    monkeypatch.setattr(protocol, "_processes", lambda orders: pytest.fail("measured"))
    monkeypatch.setattr(prepare, "_side_by_side", lambda *stages: pytest.fail("exported"))
    prepare.prepare(check({}), [run])
    prepare.time_eager([run])
    (row,) = deployed.latencies([run]).to_dict("records")
    assert row == {"key": run.key, "latency_ms": 2.0, "device": "Raspberry Pi 5, 4 cores"}


def test_the_noise_is_the_spread_of_the_same_cell_and_what_lies_within_it_is_equal(house):
    for repeat, value in enumerate((1.0, 1.02, 1.05, 1.0, 1.1)):
        costs.save_timing(timing(CELL._replace(repeat=repeat), [[value]]))
    assert deployed.noise(costs.timings_table())["noise"].tolist() == pytest.approx([0.1 / 1.02])
    assert deployed.levelled(pd.Series({"a": 1.0, "b": 1.05, "c": 1.2}), 0.1).tolist() == [1.0, 1.0, 1.2]


def test_records_of_another_machine_stand_beside_ones_own(house, tmp_path):
    costs.save_timing(timing(CELL))
    board = {"cpu": "Raspberry Pi 5", "cores": 4}
    file = tmp_path / "board.json"
    file.write_text(json.dumps({"lwnb_device_records": 1, "records": [timing(CELL, machine=board)]}))
    assert costs.read_file(file) == (1, {"Raspberry Pi 5, 4 cores"})
    assert len(set(costs.timings_table()["device"])) == 2
    assert costs.write_file(tmp_path / "own.json") == 1  # this machine's alone
    file.write_text(json.dumps({"lwnb_device_records": 1, "records": [timing(CELL), {"setting": {}}]}))
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
