import struct

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from lwnb.networks import build, counts
from lwnb.plan.facts import FIVE


def declared(name):
    """What torchvision publishes with its weights: `_ops` in 1e9 MACs and `_file_size` in MiB, to 3 decimals."""
    return torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta


def published_size(name):
    return 384 if name == "efficientnet_v2_s" else 224


@pytest.mark.parametrize("name", FIVE)
def test_cost_is_what_torchvision_declares(name):
    cost, theirs = counts.cost(name, 1000, published_size(name), 32), declared(name)
    assert cost["parameters"] == theirs["num_params"]
    # 1 %: three decimals are coarse for MobileNetV3 (0.057), and `_ops` has no biases, which are 0.8 % of SqueezeNet
    assert cost["macs"] == pytest.approx(theirs["_ops"] * 1e9, rel=0.01)
    # 1 %: theirs is a pickle, whose names and records cost more than a safetensors header
    assert cost["size_bytes"] == pytest.approx(theirs["_file_size"] * 2**20, rel=0.01)


@pytest.mark.parametrize("name", FIVE)
def test_macs_without_biases_are_what_torchvision_declares_to_the_last_digit(name):
    net = build.build(name, 1000).to("meta")
    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.bias = None
    assert round(counts.count_macs(net, published_size(name)) / 1e9, 3) == declared(name)["_ops"]


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
    assert counts.count_macs(layers, 10) == 800 * 27 + 512 * 9 + 45


def test_resnet18_macs_grow_with_the_area():
    """A map of four times the pixels is four times the convolutions' work; the head (512 x 10 + 10) stays."""
    head, stem = 5130, 3 * 64 * 7 * 7  # MACs; MACs a pixel
    settings = ((32, 32), (64, 32), (32, 16), (32, 8))
    base, large, finer, finest = (counts.cost("resnet18", 10, *setting)["macs"] - head for setting in settings)
    assert large == finer == 4 * base
    assert finest == 16 * base - stem * (64 * 64 - 32 * 32)  # here the stem, at 32 px, is not finer than the image


def test_size_is_that_of_the_file(tmp_path):
    file = tmp_path / "net.safetensors"
    save_file(build.build("squeezenet1_1", 10).state_dict(), file)
    content = file.read_bytes()
    assert counts.cost("squeezenet1_1", 10, 32, 32)["size_bytes"] == len(content)
    header = 8 + struct.unpack("<Q", content[:8])[0]
    assert len(content) == header + 4 * counts.cost("squeezenet1_1", 10, 32, 32)["parameters"]


def test_impossible_image_size_is_said_and_nothing_printed(capfd):
    with pytest.raises(ValueError, match="image_size: 8 is not possible .*(?s:.*)Output size is too small"):
        counts.cost("alexnet", 10, 8, 32)
    assert capfd.readouterr() == ("", "")
