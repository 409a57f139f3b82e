"""AutoAugment, RandAugment and TrivialAugment against torchvision's own, which works one image at a time."""

from collections import Counter

import pytest
import torch
from sklearn.datasets import load_sample_images
from torchvision.transforms import InterpolationMode, autoaugment

from lwnb.training import policies

NAMES = ("autoaugment", "randaugment", "trivialaugment")


@pytest.fixture(autouse=True)
def _one_thread():
    """Thousands of tiny operations: a second thread only waits, up to ten times longer on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pictures(size):
    """Cuttings of two photographs, noise, a ramp, and the cases at which a histogram or a range collapses."""
    photos = [torch.tensor(photo).permute(2, 0, 1) for photo in load_sample_images().images]
    cut = [photo[:, at : at + size, at + 9 : at + 9 + size] for photo in photos for at in (0, 150, 300)]
    noise = torch.randint(256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ramp = torch.arange(3 * size * size).view(3, size, size).mul(7).remainder(256).to(torch.uint8)
    flat = [torch.full_like(noise, level) for level in (0, 128, 255)]
    return torch.stack([*cut, noise, noise // 64, noise // 255 * 255, noise // 8 + 100, ramp, *flat])


def torchvisions(image, steps):
    for name, magnitude in steps:
        image = autoaugment._apply_op(image, name, magnitude, InterpolationMode.NEAREST, None)
    return image


def steps_of(chain, applied):
    return tuple((name, magnitude) for (name, _, magnitude), on in zip(chain, applied, strict=True) if on)


@pytest.mark.parametrize("size", [28, 32, 96])  # 28 and 96 have ties between pixels that 32 has not
def test_every_operation_equals_torchvision_at_every_magnitude(size):
    steps = {(name, m) for policy in NAMES for chain in policies.chains(policy, size) for name, _, m in chain}
    steps |= {("Invert", 0.0), ("Solarize", 0.0), ("Solarize", 255.0), ("Posterize", 0), ("Posterize", 1)}
    steps |= {(name, m) for name in policies.BLENDS for m in (-1.0, -0.001, 1.0)}
    steps |= {("Rotate", m) for m in (-180.0, -90.0, 0.0, 45.0, 90.0)} | {("TranslateX", float(size))}
    assert {name for name, _ in steps} == set(policies.CODES) - {"Warp"}
    images = pictures(size)
    for name, magnitude in sorted(steps):
        codes = torch.full((len(images),), policies.CODES[name])
        arguments = torch.tensor([policies._arguments(name, magnitude, size)] * len(images))
        ours = policies._apply(images, codes, arguments)
        assert torch.equal(ours, torchvisions(images, [(name, magnitude)])), (name, magnitude)


@pytest.mark.parametrize("policy", NAMES)
def test_a_batch_equals_torchvision_on_the_same_draw(policy):
    images = pictures(32).repeat(10, 1, 1, 1)
    chain, applied = policies.draw(policy, len(images), 32, torch.Generator().manual_seed(7))
    chosen = [steps_of(policies.chains(policy, 32)[i], on) for i, on in zip(chain.tolist(), applied, strict=True)]
    before = images.clone()
    ours = policies.transform(policy, images, torch.Generator().manual_seed(7))
    assert torch.equal(ours, torch.stack([torchvisions(*pair) for pair in zip(images, chosen, strict=True)]))
    assert torch.equal(images, before), "the caller's images were changed"
    assert len(set(chosen)) > 20, "the images share their draws"


def torchvisions_draws(policy, number, monkeypatch):
    """What torchvision itself draws, with the operations taken out."""
    drawn = []
    with monkeypatch.context() as patch:
        patch.setattr(autoaugment, "_apply_op", lambda image, name, magnitude, **_: drawn[-1].append((name, magnitude)))
        patch.setattr(autoaugment.F, "get_dimensions", lambda image: [3, 64, 64])
        transform = {
            "autoaugment": lambda: autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy.CIFAR10),
            "randaugment": autoaugment.RandAugment,
            "trivialaugment": autoaugment.TrivialAugmentWide,
        }[policy]()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            for _ in range(number):
                drawn.append([])
                transform(None)
    return [tuple(steps) for steps in drawn]


@pytest.mark.parametrize("policy", NAMES)
def test_draws_are_as_frequent_as_torchvisions(policy, monkeypatch):
    theirs = torchvisions_draws(policy, 4_000, monkeypatch)
    chain, applied = policies.draw(policy, 20_000, 64, torch.Generator().manual_seed(1))
    known = policies.chains(policy, 64)
    ours = [steps_of(known[i], on) for i, on in zip(chain.tolist(), applied.tolist(), strict=True)]
    for key in (
        lambda steps: tuple(name for name, _ in steps),
        lambda steps: tuple(magnitude < 0 for _, magnitude in steps),
        lambda steps: steps[0] if steps else None,
        lambda steps: steps[-1] if steps else None,
        len,
    ):
        counts, expected = Counter(map(key, ours)), Counter(map(key, theirs))
        for case in counts.keys() | expected.keys():
            share = (counts[case] + expected[case]) / (len(ours) + len(theirs))
            sigma = (share * (1 - share) * (1 / len(ours) + 1 / len(theirs))) ** 0.5
            difference = abs(counts[case] / len(ours) - expected[case] / len(theirs))
            assert difference <= 5 * sigma + 1 / len(theirs), case
