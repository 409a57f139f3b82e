import json

import numpy as np
import pytest
import safetensors.numpy
from planted import ARRAYS, ENVIRONMENT, HISTORY, METRICS, RUN, save

from lwnb.base.errors import ParamsError
from lwnb.edge import protocol
from lwnb.evidence import stats
from lwnb.plan.run import Run
from lwnb.records import costs, failures, folders, machine, publishing, results, tables


def test_a_record_comes_back_as_it_was_saved(house):
    run = Run(**RUN)
    assert results.status(run) == "missing" and results.find(run) is None
    save(run)
    record = results.find(run)
    assert results.status(run) == "done" and record.metrics == METRICS and record.environment == ENVIRONMENT
    assert record.history["val_top1"].tolist() == [0.4, 0.5]
    assert record.predictions["top5"].tolist() == [[0, 1], [1, 0]]
    assert record.folder == house / "runs" / "digits" / "resnet18" / run.key
    assert results.find_key(run.key).run == run and record.weights.read_bytes() == b"weights"


def test_a_record_is_found_by_its_key_and_no_other_one_is_opened(house, monkeypatch):
    run, *others = [save(Run(**RUN | {"seed": seed})).run for seed in range(4)]
    for other in others:
        (folders.folder(other) / "run.json").write_text("{")
    opened, read = [], results.disk.read_json
    monkeypatch.setattr(results.disk, "read_json", lambda file: opened.append(file) or read(file))
    assert results.find_key(run.key).run == run
    assert opened == [folders.folder(run) / "run.json"]
    folders.folder(run).rename(folders.part(run))
    for key in (run.key, f"{run.key}.part", "*", "../*", "0" * 12):
        assert results.find_key(key) is None, key
    assert len(opened) == 1


class Stop(BaseException):
    """A kill, which no `except Exception` catches."""


@pytest.mark.parametrize("step", range(1, 14))
def test_a_save_that_stops_at_any_write_or_rename_leaves_no_half_record(house, monkeypatch, step):
    left, run = [step], Run(**RUN)

    def watch(call):
        def counted(*arguments, **more):
            left[0] -= 1
            if left[0] == 0:
                raise Stop
            return call(*arguments, **more)

        return counted

    monkeypatch.setattr("os.fsync", watch(results.os.fsync))
    monkeypatch.setattr("pathlib.Path.rename", watch(results.Path.rename))
    try:
        save(run)
    except Stop:
        assert results.find(run) is None and results.every() == []
    else:
        raise AssertionError(f"a save has fewer than {step} such steps: the range of this test is too long")
    monkeypatch.undo()
    monkeypatch.setenv("LWNB_HOME", str(house))
    save(run)
    assert results.find(run).metrics == METRICS


def test_a_folder_without_metrics_is_no_record_and_is_replaced(house):
    run = Run(**RUN)
    folders.folder(run).mkdir(parents=True)
    (folders.folder(run) / "rubbish").touch()
    assert results.find(run) is None
    save(run)
    assert results.find(run) and not (folders.folder(run) / "rubbish").exists()


def test_a_failure_is_kept_with_reason_and_traceback_until_a_try_succeeds(house):
    run = Run(**RUN)
    try:
        raise FloatingPointError("the loss is nan")
    except FloatingPointError as error:
        failures.fail(run, error)
    row = tables.of_runs([run]).iloc[0]
    assert (row.status, row.reason) == ("failed", "FloatingPointError: the loss is nan")
    assert "test_results.py" in tables.failed()[0]["traceback"]
    save(run)
    assert results.status(run) == "done" and not tables.failed()


def test_a_run_that_did_not_learn_shows_no_accuracy(house):
    run = Run(**RUN)
    save(run, learned=False)
    row = tables.of_runs([run]).iloc[0]
    assert row.status == "did not learn" and row.top1 != row.top1 and row.n_train == 100


@pytest.mark.parametrize("guess", [0.005, 0.1, 1 / 3, 0.9])
def test_better_than_a_guess_is_what_wilson_s_interval_says(guess):
    for n in (7, 40, 2000):
        for right in range(n + 1):
            low, _ = stats.wilson(right / n, n)
            assert results.better(right / n, n, guess) == (low > guess), (right, n)


def test_a_network_that_is_no_better_than_the_largest_class_did_not_learn_whatever_its_loss(house):
    runs = [Run(**RUN | {"seed": seed}) for seed in range(2)]
    for run, top1 in zip(runs, (0.40, 0.44), strict=True):  # of 100: Wilson from 0.309 and from 0.347
        save(run, top1=top1, guess_top1=1 / 3, n_test=100)
    assert [record.run for record in results.learned([*runs, Run(**RUN | {"seed": 9})])] == runs[1:]
    bad, good = tables.of_runs(runs).to_dict("records")
    assert (bad["status"], good["status"]) == ("did not learn", "done")
    assert bad["top1"] != bad["top1"] and "0.400" in bad["reason"] and "0.333" in bad["reason"] and not bad["learned"]
    assert good["top1"] == 0.44 and good["reason"] != good["reason"] and good["guess_top1"] == 1 / 3


def test_what_a_guess_has_is_counted_where_a_record_does_not_say_it(house):
    arrays = {"labels": np.array([2, 0, 2, 2]), "top5": np.array([[2]] * 4)}
    known = {name: value for name, value in METRICS.items() if name != "guess_top1"} | {"top1": 0.75}
    record = results.save(Run(**RUN), known, HISTORY, arrays, ENVIRONMENT, b"")
    assert record.guess_top1 == 0.75 and not record.learned


def test_publish_copies_records_without_weights_and_they_are_found_without_the_original(house):
    record = save()
    assert len(publishing.publish_runs([record])) == 1 and publishing.publish_runs([record]) == []
    for file in record.folder.iterdir():
        file.unlink()
    record.folder.rmdir()
    found = results.find(record.run)
    assert found.folder.is_relative_to(house / "results") and found.weights is None and found.metrics == METRICS
    assert len(results.every()) == 1


def test_weights_can_be_published_later_and_only_where_they_are(house):
    weights = safetensors.numpy.save({"w": np.ones(3, np.float32)})
    record = results.save(Run(**RUN), METRICS, HISTORY, ARRAYS, ENVIRONMENT, weights)
    kept = folders.folder(record.run, "results") / folders.WEIGHTS
    publishing.publish_runs([record])
    assert not kept.exists()
    publishing.publish_runs([record], weights=True)
    assert safetensors.numpy.load_file(kept)["w"].dtype == np.float16
    kept.unlink()
    record.weights.unlink()
    with pytest.raises(ParamsError, match=f"{record.run.key}: its weights are not on this machine"):
        publishing.publish_runs([record], weights=True)


def test_a_run_in_both_places_is_one_row(house):
    publishing.publish_runs([save()])
    assert len(results.every()) == 1 and results.every()[0].folder.is_relative_to(house / "runs")


@pytest.fixture
def project(house, tmp_path, monkeypatch):
    """Published records outside the home."""
    monkeypatch.setenv("LWNB_HOME", str(house / "home"))
    monkeypatch.setenv("LWNB_RESULTS", str(tmp_path / "project"))
    return tmp_path / "project"


def move(record, project):
    """Where a record stands among the project's published ones, and nowhere else."""
    place = project / record.folder.relative_to(results.home() / "runs")
    place.parent.mkdir(parents=True)
    return record.folder.rename(place)


def test_the_project_s_published_records_are_found_from_a_home_elsewhere(project):
    run = save().run
    assert not results.find(run).published
    place = move(results.find(run), project)
    for found in (results.find(run), results.find_key(run.key), *results.every()):
        assert found.folder == place and found.published
    save()
    assert not results.find(run).published and [record.published for record in results.every()] == [False]


def test_what_the_project_has_published_is_not_published_again_and_nothing_is_written_there(project):
    record = save()
    move(record, project)
    before = {file: file.stat().st_mtime_ns for file in project.rglob("*")}
    assert publishing.publish_runs([results.find(record.run)]) == [] == publishing.publish_runs([save()])
    assert not (results.home() / "results").exists()
    (folders.folder(record.run) / folders.CONVERSIONS).write_text('{"rows": [1]}')
    (copied,) = publishing.publish_runs([results.find(record.run)])
    assert (copied / folders.CONVERSIONS).exists() and copied.is_relative_to(results.home() / "results")
    assert {file: file.stat().st_mtime_ns for file in project.rglob("*")} == before


def test_device_records_and_footprints_of_the_project_are_found_too(project):
    setting, shape = protocol.setting(protocol.Cell("resnet18", 10, 32, 32)), {"model": "resnet18", "image_size": 32}
    shape |= {"output_stride": 32, "num_classes": 10}
    costs.save_timing({"setting": setting, "samples_ms": [[1.0]]})
    costs.save_footprint(shape, {"onnx_fp32_bytes": 1})
    project.mkdir()
    for kind in ("devices", "footprints"):
        (results.home() / "runs" / kind).rename(project / kind)
    assert costs.find_timing(setting) == costs.timings()[0] == {"setting": setting, "samples_ms": [[1.0]]}
    assert costs.find_footprint(shape) == {"onnx_fp32_bytes": 1} and len(costs.timing_names()) == 2
    assert publishing.publish_costs() == 0


def test_a_timing_belongs_to_its_whole_setting(house):
    setting = protocol.setting(protocol.Cell("resnet18", 10, 32, 32))
    costs.save_timing({"setting": setting, "samples_ms": [[1.0]]})
    assert costs.find_timing(setting)["samples_ms"] == [[1.0]]
    for change in ({"threads": 2}, {"machine": {"cpu": "another"}}, {"precision": "int8"}, {"runtime_version": "0"}):
        assert costs.find_timing(setting | change) is None


def test_a_cached_record_loads_in_under_ten_milliseconds(house):
    import time

    save()
    began = time.process_time()
    assert json.dumps(results.find(Run(**RUN)).metrics)
    assert time.process_time() - began < 0.01


@pytest.mark.parametrize(
    ("lines", "instructions"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx avx2 fma\n", "AVX2"),
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni\n", "AVX-512 VNNI"),
        ("model name\t: Intel(R) Xeon(R) Processor\nflags\t\t: avx2 avx512f\n", "AVX-512"),
        ("Features\t: fp asimd asimddp\nModel\t\t: Raspberry Pi 5\n", "SDOT"),
        ("model name\t: of long ago\nflags\t\t: fpu sse\n", None),
    ],
)
def test_generations_of_one_processor_name_are_told_apart(tmp_path, lines, instructions):
    (info := tmp_path / "cpuinfo").write_text(lines)
    found = machine.machine(info)
    assert found["instructions"] == instructions and found["cpu"] in lines
    assert machine.device(found) == f"{found['cpu']}, {found['cores']} cores" + (
        f", {instructions}" if instructions else ""
    )
    assert machine.device({"cpu": "AMD EPYC", "cores": 2}) == "AMD EPYC, 2 cores", "records from before"


def test_a_machine_of_which_nothing_is_known_has_no_instructions(tmp_path):
    assert machine.machine(tmp_path / "absent")["instructions"] is None
