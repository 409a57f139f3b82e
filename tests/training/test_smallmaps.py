"""Convolutions of small maps: the same sums as torch's own, and in every training on a processor."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from lwnb.base.places import CHECKOUT
from lwnb.batch import grid
from lwnb.data import sets
from lwnb.networks import build, states
from lwnb.plan import studies
from lwnb.plan.facts import FIVE
from lwnb.plan.params import check
from lwnb.training import evaluation, smallmaps, train


def gradients(net, images, labels):
    """The loss of one step in training mode and all gradients, one after another."""
    torch.manual_seed(0)  # dropout and stochastic depth
    loss = nn.functional.cross_entropy(net.train()(images), labels)
    loss.backward()
    return loss.item(), torch.cat([parameter.grad.flatten() for parameter in net.parameters()])


@pytest.mark.parametrize("name", FIVE)
def test_a_network_has_the_same_loss_and_gradients(name):
    """In float64 only rounding is left: a wrong tap or a lost gradient would be of the size of the gradient."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64)
    plain, short = (build.build(name, 10, 32).double() for _ in range(2))
    smallmaps.shortcut(short)
    (loss, wanted), (found_loss, found) = (gradients(net, images, torch.arange(4)) for net in (plain, short))
    assert found_loss == pytest.approx(loss, rel=1e-12)
    assert (found - wanted).norm() < 1e-11 * wanted.norm()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(short.state_dict()[key], value, msg=key)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 3), (4, 1), (3, 3)])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 1, "padding": 1},
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 3},
        {"kernel_size": 3, "padding": 2},
        {"kernel_size": 4, "padding": 2},
        {"kernel_size": 3, "padding": (1, 2), "stride": (1, 2), "bias": False},
        {"kernel_size": (3, 5), "padding": (1, 2), "stride": (2, 1)},
        {"kernel_size": 3, "padding": 1, "stride": 2, "groups": 8},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
        {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
        {"kernel_size": (1, 3), "padding": (0, 1)},
        {"kernel_size": 5, "padding": 2, "groups": 8},
        {"kernel_size": 5, "padding": 2, "groups": 8, "bias": False},
        {"kernel_size": 3, "padding": 1, "groups": 4},
        {"kernel_size": 1, "groups": 8},
        {"kernel_size": 1, "groups": 4},
    ],
    ids=str,
)
def test_every_kind_of_convolution_keeps_its_output_and_gradients(options, size):
    """Taken or not, the short way changes nothing, errors included."""
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, **options).double()
    short = smallmaps.shortcut(nn.Conv2d(8, 8, **options).double())
    short.load_state_dict(plain.state_dict())
    found = []
    for conv in (plain, short):
        x = torch.arange(5 * 8 * size[0] * size[1], dtype=torch.float64).sin().view(5, 8, *size).requires_grad_()
        try:
            out = conv(x)
        except RuntimeError as error:
            found.append(str(error))
            continue
        out.pow(2).sum().backward()
        found.append([out.detach(), x.grad, *(parameter.grad for parameter in conv.parameters())])
    if isinstance(found[0], str):
        assert found[1] == found[0]
    else:
        torch.testing.assert_close(found[1], found[0])


def test_bfloat16_keeps_its_type():
    """Under autocast a depthwise product stays in bfloat16, as the convolution does."""
    conv = smallmaps.shortcut(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False))
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(torch.randn(2, 8, 1, 1, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.skipif(torch.accelerator.is_available(), reason="training takes the accelerator of this machine")
def test_a_training_on_a_processor_takes_the_short_way(house, monkeypatch):
    """And its record's numbers are those of the plain network with the same weights."""
    taken = []
    monkeypatch.setattr(smallmaps, "_taps", lambda *what, find=smallmaps._taps: taken.append(what) or find(*what))
    few = {"train_size": 240, "test_size": 100, "epochs": 1, "batch_size": 32, "output_stride": 32, "image_size": 32}
    (run,) = studies.architectures(grid.pin(check(few | {"models": ["resnet18"]})))
    record = train.train(run)
    assert taken
    net = build.build(run.model, 10, 32)
    net.load_state_dict(states.from_file(record.weights))
    test = sets.task(run).test
    logits = evaluation.evaluate(net, test.images, 32)
    assert evaluation.fit(logits, test.labels)["loss"] == pytest.approx(record.metrics["loss"], rel=1e-5)


@pytest.mark.slow
def test_its_benchmark_prints_both_ways_and_their_ratio():
    options = ["--models", "squeezenet1_1", "--batches", "2", "--steps", "1"]
    command = [sys.executable, "-m", "benchmarks.smallmaps", *options]
    told = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    *_, row = told.splitlines()
    _, _, model, plain, short, ratio = row.split()
    assert model == "squeezenet1_1" and float(ratio) == pytest.approx(float(plain) / float(short), rel=0.02)
