"""What holds on the processor holds on a GPU too; skipped with a reason where there is none."""

import pytest
import torch
from torch import nn
from trained import numbers, tiny

from lwnb.networks import build
from lwnb.plan.facts import FIVE, IMAGENET
from lwnb.training import augment, evaluation, policies, settings, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")

POLICIES = [
    "none", "crop", "flip-crop+random-erasing", "flip-crop+mixup", "flip-crop+cutmix",
    "flip-crop+autoaugment", "flip-crop+randaugment", "flip-crop+trivialaugment",
]  # fmt: skip


@pytest.fixture
def exact(tmp_path):
    """The mode in which a run trains: deterministic, fp32 in full."""
    torch.use_deterministic_algorithms(True)
    with settings.settled(tmp_path / "setting"):
        yield
    torch.use_deterministic_algorithms(False)


def pictures(count=256, size=32):
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_batch_is_made_on_the_device_and_the_same_each_time(policy, exact):
    images, labels = pictures().cuda(), torch.arange(256).cuda() % 10
    first, second = (
        augment.augment(policy, images, labels, 10, torch.Generator("cuda").manual_seed(7), IMAGENET) for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        assert one.device.type == "cuda" and one.isfinite().all() and one.equal(other)


@pytest.mark.parametrize("policy", ["autoaugment", "randaugment", "trivialaugment"])
def test_every_operation_does_on_the_device_what_it_does_on_the_processor(policy, exact):
    here, there = pictures(2000), pictures(2000).cuda()
    codes, _, arguments = policies._table(policy, 32, torch.device("cpu"))
    chain, applied = policies.draw(policy, len(here), 32, torch.Generator().manual_seed(3))
    for step in range(codes.shape[1]):
        code, argument = codes[chain, step] * applied[:, step], arguments[chain, step]
        here, there = policies._apply(here, code, argument), policies._apply(there, code.cuda(), argument.cuda())
    there = there.cpu()
    assert (here == there).float().mean() > 0.999


def test_fp32_is_fp32(exact):
    """TF32, which PyTorch lets convolutions use by default, is wrong by about 3e-4."""
    layer = nn.Conv2d(64, 64, 3).double()
    images = torch.randn(32, 64, 16, 16, dtype=torch.double)
    right = layer(images)
    found = layer.float().cuda()(images.float().cuda()).double().cpu()
    assert (found - right).norm() / right.norm() < 1e-5


@pytest.mark.parametrize("model", FIVE)
def test_a_network_says_there_what_it_says_here(model, exact):
    net, images = build.build(model, 10, 16, 0), pictures(64)
    here = evaluation.evaluate(net, images, 32)
    there = evaluation.evaluate(net.cuda(), images, 32).cpu()
    assert (here - there).norm() / here.norm() < 1e-4


@pytest.mark.parametrize("model", FIVE)
def test_a_network_trains_and_its_record_names_the_device(model, house):
    about = train.train(tiny(models=[model], epochs=1)).environment
    assert about["device"] == "cuda" and about["machine"]["accelerator"] == torch.cuda.get_device_name()


def test_a_run_twice_gives_the_same_numbers(house, tmp_path, monkeypatch):
    first = train.train(tiny())
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "again"))
    assert numbers(train.train(tiny())) == numbers(first)


def test_bf16_trains_there_too(house):
    assert train.train(tiny(precision="bf16")).metrics["learned"]
