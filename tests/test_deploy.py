"""Exported and quantised networks, held against PyTorch, against arithmetic by hand, and against a fault that is planted."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from test_train import tiny
from torch import nn

from lwnb import conversions, costs, deploy, exports, grid, models, results, runtimes, train
from lwnb.params import CHECKOUT

pytest.importorskip("onnx", reason="the extra edge is not installed")

SHAPE = (4, 3, 32, 32)


def outputs(runtime, file, images):
    call = runtimes.RUNTIMES[runtime](1)({"file": str(file)})
    size = 1 if runtime == "executorch" else len(images)
    return np.concatenate([call(part.numpy()).copy() for part in images.split(size)])


@pytest.fixture(scope="module")
def net():
    return models.build("squeezenet1_1", 10).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "form"), [("onnxruntime", "onnx"), ("executorch", "executorch"), ("openvino", "onnx")]
)
def test_an_exported_network_says_what_pytorch_says(net, tmp_path, runtime, form):
    if runtimes.absent(runtime):
        pytest.skip(f"{runtime} is not installed")
    images = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    deploy.export(net, form, file := tmp_path / f"net{runtimes.SUFFIXES[form]}", 32)
    with torch.no_grad():
        wanted = net(images).numpy()
    assert np.abs(outputs(runtime, file, images) - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert [one.name for one in tmp_path.iterdir()] == [file.name]


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "form"), [("onnxruntime", "onnx"), ("executorch", "executorch")])
def test_int8_is_a_quarter_of_the_file_and_near(net, tmp_path, runtime, form):
    images = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    files = [tmp_path / f"{precision}{runtimes.SUFFIXES[form]}" for precision in ("fp32", "int8")]
    for file, calibration in zip(files, (None, images), strict=True):
        deploy.export(net, form, file, 32, calibration=calibration)
    assert 0.2 < files[1].stat().st_size / files[0].stat().st_size < 0.35
    exact, rough = (outputs(runtime, file, images) for file in files)
    assert 0 < np.abs(exact - rough).max() < 0.1 * np.abs(exact).max()


def test_int8_products_do_not_saturate_where_a_processor_adds_them_in_16_bits(tmp_path):
    """Weights and inputs all at the top of their ranges: two products are 2 x 255 x 127, twice what 16 bits hold. Without VNNI
    the output was half of what it is."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Flatten()).eval()
    nn.init.constant_(net[0].weight, 0.01)
    images = torch.linspace(0.9, 1, 32 * 3 * 64).view(32, 3, 8, 8)
    deploy.export(net, "onnx", file := tmp_path / "int8.onnx", 8, calibration=images)
    wanted = net(images).detach().numpy()
    assert np.abs(outputs("onnxruntime", file, images) - wanted).max() < 0.02 * wanted.max()


@pytest.mark.slow
def test_planned_memory_by_hand():
    """conv 3 -> 8, ReLU, conv 8 -> 16 stride 2, flatten, linear at 32 px: the most at once is ReLU's in and out, 2 x 8 x 32 x 32
    x 4 bytes."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Flatten()]
    assert deploy.planned(nn.Sequential(*layers, nn.Linear(4096, 10)), 32) == 65_536


def test_a_layer_whose_weights_int8_cannot_hold_is_found(tmp_path):
    """The second convolution's output spans a factor of 10^5 between channels: one scale for all of them is too coarse."""
    torch.manual_seed(0)
    wild = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4 * 64, 3)).eval()
    with torch.no_grad():
        wild[1].weight[0] *= 1e5
        wild[3].weight[:, :64] *= 1e-5
    images = torch.randn(32, 3, 8, 8)
    files = [tmp_path / "fp32.onnx", tmp_path / "int8.onnx"]
    for file, calibration in zip(files, (None, images), strict=True):
        deploy.export(wild, "onnx", file, 8, calibration=calibration)
    found = deploy.worst_layers(*files, images)
    assert found and found[0]["snr_db"] < 30 and found == sorted(found, key=lambda one: one["snr_db"])


@pytest.fixture
def record(house):
    return train.train(tiny(models=["resnet18"], epochs=4))


@pytest.mark.slow
def test_a_trained_network_keeps_its_guesses_and_its_conversions_join_the_record(record):
    exports.convert([record.run], ["onnxruntime"])
    found = results.find(record.run)
    fp32, int8 = found.conversions
    assert fp32["agree"] == 1.0 and fp32["error"] < 1e-4
    assert fp32["predictions"] == found.predictions["top5"][:, 0].tolist()
    assert int8["precision"] == "int8" and len(int8["predictions"]) == found.metrics["n_test"]
    shown = conversions.table([found])
    assert shown["difference"][0] == 0 and shown["p"][0] == 1
    before = found.conversions
    exports.convert([record.run], ["onnxruntime"])
    assert results.find(record.run).conversions == before
    assert results.publish([found]) and results.find(record.run)
    assert (results.folder(record.run, "results") / results.CONVERSIONS).exists()


@pytest.mark.slow
def test_a_network_is_exported_as_its_run_ends_and_that_travels_with_its_record(house, tmp_path, monkeypatch):
    run = tiny(models=["resnet18"], epochs=4)
    grid.ensure([run], exported={run.key: ["onnxruntime"]})
    found = results.find(run)
    assert [row["precision"] for row in found.conversions] == ["fp32", "int8"]
    weighed = costs.find_footprint(costs.shape(run, 10))
    assert weighed["onnx_int8_bytes"] == found.conversions[1]["size_bytes"] < weighed["onnx_fp16_bytes"]
    files = results.pack(found)
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "elsewhere"))
    assert results.store(run, files).conversions == found.conversions


def example() -> str:
    """The lines of the README, and a check of what they have loaded."""
    lines = (CHECKOUT / "README.md").read_text(encoding="utf-8").splitlines()
    first = lines.index("    import json, sys")
    last = next(n for n in range(first, len(lines)) if not lines[n].startswith("    "))
    assert last - first == 10
    return textwrap.dedent("\n".join(lines[first:last])) + '\nassert not {"torch", "lwnb"} & set(sys.modules)'


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
def test_a_shipped_file_is_used_without_torch_and_without_this_package(record, tmp_path, int8):
    from PIL import Image

    from lwnb import data

    deploy.ship(record, "onnx", int8, file := tmp_path / "net.onnx")
    sure = int(record.predictions["confidence"].argmax())
    Image.fromarray(data.task(record.run).test.images[sure].permute(1, 2, 0).numpy()).save(
        picture := tmp_path / "one.png"
    )
    command = [sys.executable, "-I", "-c", example(), file, picture]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    guess = record.metrics["classes"][record.predictions["top5"][sure, 0]]
    assert done.stdout.strip() == guess
    about = deploy.about(record)
    assert about["run"] == record.run.key and "CC BY 4.0" in about["data_terms"] and json.loads(about["classes"])


def test_weights_that_are_not_here_are_refused(record):
    (record.folder / results.WEIGHTS).unlink()
    with pytest.raises(models.WeightsError, match="no weights on this machine"):
        deploy.load(record)


@pytest.mark.slow
def test_a_network_that_int8_hurts_is_fine_tuned_through_the_rounding_and_looked_at(record, monkeypatch):
    """Any loss counts as too much here, so that both ways are taken."""
    monkeypatch.setattr(deploy, "LOSS", -1.0)
    monkeypatch.setitem(deploy.FINETUNE, "steps", 4)
    exports.convert([record.run], ["onnxruntime", "executorch"])
    found = results.find(record.run)
    ways = [(row["runtime"], row["precision"]) for row in found.conversions]
    assert ways[1:] == [("onnxruntime", "int8"), *[("executorch", one) for one in ("fp32", "int8", "int8-aware")]]
    assert len(conversions.layers([found])) == 5 and found.conversions[2]["agree"] == 1.0
    sizes = {row["precision"]: row["size_bytes"] for row in found.conversions if row["runtime"] == "executorch"}
    assert sizes["int8-aware"] < 0.35 * sizes["fp32"]
