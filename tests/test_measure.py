import json
import socket
import struct
import time

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from lwnb import measure, models
from lwnb.params import FIVE


def declared(name):
    """What torchvision publishes with its weights: `_ops` in 1e9 MACs and `_file_size` in MiB, to 3 decimals."""
    return torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta


def published_size(name):
    return 384 if name == "efficientnet_v2_s" else 224


@pytest.mark.parametrize("name", FIVE)
def test_cost_is_what_torchvision_declares(name):
    cost, theirs = measure.cost(name, 1000, published_size(name), 32), declared(name)
    assert cost["parameters"] == theirs["num_params"]
    # 1 %: three decimals are coarse for MobileNetV3 (0.057), and `_ops` has no biases, which are 0.8 % of SqueezeNet
    assert cost["macs"] == pytest.approx(theirs["_ops"] * 1e9, rel=0.01)
    # 1 %: theirs is a pickle, whose names and records cost more than a safetensors header
    assert cost["size_bytes"] == pytest.approx(theirs["_file_size"] * 2**20, rel=0.01)


@pytest.mark.parametrize("name", FIVE)
def test_macs_without_biases_are_what_torchvision_declares_to_the_last_digit(name):
    net = models.build(name, 1000).to("meta")
    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.bias = None
    assert round(measure.count_macs(net, published_size(name)) / 1e9, 3) == declared(name)["_ops"]


def test_macs_by_hand():
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False),  # at 10 px: 8 * 10 * 10 outputs of 3 * 3 * 3
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, groups=8, bias=False),  # depthwise: 8 * 8 * 8 outputs of 3 * 3
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),  # 5 outputs of 8, and 5 biases
    )
    assert measure.count_macs(layers, 10) == 800 * 27 + 512 * 9 + 45


def test_resnet18_macs_grow_with_the_area():
    """A map of four times the pixels is four times the convolutions' work; the head (512 x 10 + 10) stays."""
    head, stem = 5130, 3 * 64 * 7 * 7  # MACs; MACs a pixel
    settings = ((32, 32), (64, 32), (32, 16), (32, 8))
    base, large, finer, finest = (measure.cost("resnet18", 10, *setting)["macs"] - head for setting in settings)
    assert large == finer == 4 * base
    assert finest == 16 * base - stem * (64 * 64 - 32 * 32)  # here the stem, at 32 px, is not finer than the image


def test_size_is_that_of_the_file(tmp_path):
    file = tmp_path / "net.safetensors"
    save_file(models.build("squeezenet1_1", 10).state_dict(), file)
    content = file.read_bytes()
    assert measure.cost("squeezenet1_1", 10, 32, 32)["size_bytes"] == len(content)
    header = 8 + struct.unpack("<Q", content[:8])[0]
    assert len(content) == header + 4 * measure.cost("squeezenet1_1", 10, 32, 32)["parameters"]


def test_impossible_image_size_is_said_and_nothing_printed(capfd):
    with pytest.raises(ValueError, match="image_size: 8 is not possible .*(?s:.*)Output size is too small"):
        measure.cost("alexnet", 10, 8, 32)
    assert capfd.readouterr() == ("", "")


def test_timing_names_its_setting_and_no_host():
    record = measure.latency("squeezenet1_1", 7, 64, 8, threads=2, batch_size=3, min_calls=2, min_seconds=0)
    asked = {"model": "squeezenet1_1", "num_classes": 7, "image_size": 64, "output_stride": 8}
    asked |= {"threads": 2, "batch_size": 3, "runtime": "pytorch-eager", "precision": "fp32"}
    assert asked.items() <= record["setting"].items()
    assert record["setting"]["machine"]["cpu"] and record["load_1min"] >= 0
    assert socket.gethostname() not in json.dumps(record)


def test_latency_samples():
    threads = torch.get_num_threads()
    fast = measure.latency("squeezenet1_1", 10, 32, 32, min_calls=20, min_seconds=0.2)
    assert sum(fast["samples_ms"]) >= 0.9 * 200 and len(fast["samples_ms"]) >= 20
    slow = measure.latency("efficientnet_v2_s", 10, 32, 32, warmup=2, min_calls=5, min_seconds=0)
    assert len(slow["samples_ms"]) == 5
    assert 0 < sorted(fast["samples_ms"])[len(fast["samples_ms"]) // 2] < min(slow["samples_ms"])
    assert torch.get_num_threads() == threads
    assert json.loads(json.dumps(fast)) == fast


def test_slow_first_calls_are_warm_up(monkeypatch):
    calls = []

    class Waking(torch.nn.Module):
        def forward(self, _):
            calls.append(0.2 if len(calls) < 3 else 0.004)
            time.sleep(calls[-1])

    monkeypatch.setattr(models, "build", lambda *_: Waking())
    record = measure.latency("resnet18", 10, 32, 32, warmup=3, min_calls=6, min_seconds=0)
    assert len(calls) == 3 + 6 == 3 + len(record["samples_ms"])
    assert min(record["samples_ms"]) >= 4 and sorted(record["samples_ms"])[3] < 100


def test_threads_are_set_and_restored_even_on_failure(monkeypatch):
    before, seen = torch.get_num_threads(), []

    class Failing(torch.nn.Module):
        def forward(self, _):
            seen.append(torch.get_num_threads())
            raise RuntimeError("injected")

    monkeypatch.setattr(models, "build", lambda *_: Failing())
    with pytest.raises(RuntimeError, match="injected"):
        measure.latency("resnet18", 10, 32, 32, threads=before + 1)
    assert seen == [before + 1] and torch.get_num_threads() == before
