"""Crops, erasing, mixing and normalisation against torchvision, on the same draw where there is one."""

import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from sklearn.datasets import load_sample_images
from torchvision.transforms import RandomErasing, functional, v2

from lwnb.networks import preprocessing
from lwnb.networks.preprocessing import resize
from lwnb.plan import facts
from lwnb.plan.facts import IMAGENET
from lwnb.training import augment as augmenting
from lwnb.training.augment import erased, pasted, windows

augment, normalise = partial(augmenting.augment, scale=IMAGENET), partial(preprocessing.normalise, scale=IMAGENET)

LONG = "flip-crop+trivialaugment+random-erasing+cutmix"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(number, size):
    """No 0 and no 255, so that what a policy fills in can be told from what was there."""
    return torch.randint(1, 255, (number, 3, size, size), dtype=torch.uint8, generator=seeded(99))


def test_normalise_equals_torchvision_at_every_level():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    for scale in (IMAGENET, facts.Scale((0.5, 0.4, 0.3), (0.2, 0.25, 0.5))):
        expected = v2.functional.normalize(levels / 255, *scale)
        torch.testing.assert_close(preprocessing.normalise(levels, scale), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [32, 64, 333])
def test_resize_equals_pillow_on_photographs(size):
    photos = np.stack([photo[:400, :400] for photo in load_sample_images().images])
    pillow = np.stack([np.asarray(Image.fromarray(p).resize((size, size), Image.Resampling.BILINEAR)) for p in photos])
    ours = resize(torch.tensor(photos).permute(0, 3, 1, 2), size).permute(0, 2, 3, 1).numpy()
    assert ours.dtype == np.uint8 and ours.shape == pillow.shape
    assert np.abs(ours.astype(int) - pillow).max() <= 1  # both compute in fixed point


def test_resize_leaves_a_fitting_image_alone():
    images = noise(2, 32)
    assert resize(images, 32) is images


@pytest.mark.parametrize("size", [8, 28, 32])
def test_windows_equal_torchvision_at_every_offset(size):
    margin = size // 8
    places = torch.cartesian_prod(torch.arange(2), *[torch.arange(2 * margin + 1)] * 2)
    images = noise(len(places), size)
    expected = []
    for image, (mirrored, top, left) in zip(images, places.tolist(), strict=True):
        image = functional.hflip(image) if mirrored else image
        expected.append(functional.crop(functional.pad(image, margin), top, left, size, size))
    mirrored, top, left = places.T
    assert torch.equal(windows(images, top, left, mirrored), torch.stack(expected))
    plain = mirrored == 0
    assert torch.equal(windows(images[plain], top[plain], left[plain]), torch.stack(expected)[plain])


@pytest.mark.parametrize("policy, mirrors", [("crop", 1), ("flip-crop", 2)])
def test_every_offset_and_mirror_is_equally_frequent(policy, mirrors):
    number, size = 20_000, 8
    image = noise(1, size)
    mirrored, top, left = torch.cartesian_prod(torch.arange(mirrors), torch.arange(3), torch.arange(3)).T
    cases = normalise(windows(image.expand(len(top), -1, -1, -1), top, left, mirrored))
    images, _ = augment(policy, image.expand(number, -1, -1, -1), torch.zeros(number).long(), 1, seeded())
    counts = torch.stack([(images == case).flatten(1).all(1).sum() for case in cases])
    assert counts.sum() == number
    share = 1 / len(cases)
    assert (counts - number * share).abs().max() < 5 * (number * share * (1 - share)) ** 0.5


def test_erased_rectangles_are_distributed_as_torchvisions():
    number, size = 5_000, 32
    masks = erased(2 * number, size, seeded())[:, 0]
    hit = masks.flatten(1).any(1)
    assert abs(hit.sum().item() - number) < 5 * (2 * number * 0.25) ** 0.5
    rows, columns = masks[hit].any(2), masks[hit].any(1)
    assert torch.equal(masks[hit], rows[:, :, None] & columns[:, None, :]), "not a rectangle"
    ours = [side.int().argmax(1) for side in (rows, columns)] + [side.sum(1) for side in (rows, columns)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blank = torch.zeros(3, size, size)
        theirs = [RandomErasing.get_params(blank, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(number)]
    ours, theirs = torch.stack(ours, 1).numpy(), np.array(theirs)
    for weights in ([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, -1, 0, 0], [0, 0, 1, -1]):
        assert ks_2samp(ours @ weights, theirs @ weights).pvalue > 1e-3, f"top, left, height, width times {weights}"


def test_erasing_writes_the_mean_colour_and_nothing_else():
    images, labels = noise(200, 32), torch.zeros(200).long()
    plain = normalise(images)
    mask = erased(200, 32, seeded(3))
    ours, _ = augment("random-erasing", images, labels, 1, seeded(3))
    for image, before, (box,) in zip(ours, plain, mask, strict=True):
        assert torch.equal(image == 0, box.expand(3, -1, -1))
        assert torch.equal(image[:, ~box], before[:, ~box])


def mixed(policy, number=60, size=32, seed=5):
    """A mixed batch in which every image is a class of its own, so that the targets tell the partner and the share."""
    images = noise(number, size)
    ours, targets = augment(policy, images, torch.arange(number), number, seeded(seed))
    assert (targets.sum(1) - 1).abs().max() < 1e-6 and targets.min() >= 0
    share = targets.diagonal()
    partner = torch.where(share == 1, torch.arange(number), (targets - share.diag()).argmax(1))
    return normalise(images), ours, targets, share, partner


def pairs(transform, draws, plain, partner):
    """What torchvision makes of each image and its partner, given its draw; it mixes with the image before."""
    for i, j in enumerate(partner.tolist()):
        pair, labels = torch.stack([plain[j], plain[i]]), torch.tensor([j, i])
        given = {"labels": labels, "batch_size": 2, **draws[i]}
        yield transform.transform(pair, given)[1], transform.transform(labels, given)[1]


def test_mixup_equals_torchvision_at_the_same_share():
    plain, ours, targets, share, partner = mixed("mixup")
    expected = pairs(v2.MixUp(num_classes=60), [{"lam": own.item()} for own in share], plain, partner)
    for image, target, (their_image, their_target) in zip(ours, targets, expected, strict=True):
        torch.testing.assert_close(image, their_image, rtol=0, atol=1e-5)
        torch.testing.assert_close(target, their_target, rtol=0, atol=1e-6)
    assert len(set(share.tolist())) > 50, "the images share their draws"


def test_cutmix_equals_torchvision_with_the_same_rectangle():
    plain, ours, targets, share, partner = mixed("cutmix")
    changed = (ours != plain).any(1)
    boxes = [(c.any(0).nonzero(), c.any(1).nonzero()) for c in changed]
    boxes = [(x[0], y[0], x[-1] + 1, y[-1] + 1) if len(x) else (0, 0, 0, 0) for x, y in boxes]
    exact = 1 - changed.double().mean((1, 2))
    assert (share - exact).abs().max() < 1e-6, "the label's share is not the pixels' share"
    given = [{"box": box, "lam_adjusted": own.item()} for box, own in zip(boxes, exact, strict=True)]
    expected = pairs(v2.CutMix(num_classes=60), given, plain, partner)
    for image, target, (their_image, their_target) in zip(ours, targets, expected, strict=True):
        assert torch.equal(image, their_image)
        torch.testing.assert_close(target, their_target, rtol=0, atol=1e-6)


def test_shares_are_distributed_as_torchvisions():
    shares = mixed("mixup", number=3_000, size=8)[3]
    masks = pasted(3_000, 32, seeded())[:, 0].double().mean((1, 2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.zeros(1, 3, 32, 32)
        mixup = [v2.MixUp(num_classes=2).make_params([image])["lam"] for _ in range(3_000)]
        cutmix = [v2.CutMix(num_classes=2).make_params([image])["lam_adjusted"] for _ in range(3_000)]
    assert ks_2samp(shares.numpy(), mixup).pvalue > 1e-3
    assert ks_2samp(1 - masks.numpy(), cutmix).pvalue > 1e-3


@pytest.mark.parametrize("policy", [*facts.POLICIES, LONG])
def test_a_batch_depends_on_its_generator_alone(policy):
    images, labels = noise(64, 32), torch.arange(64) % 10
    before, state = images.clone(), torch.get_rng_state()
    first = augment(policy, images, labels, 10, seeded(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        second = augment(policy, images, labels, 10, seeded(1))
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(images, before)
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(first, second, strict=True))
    assert first[0].shape == images.shape and first[1].shape == (64, 10)
    other = augment(policy, images, labels, 10, seeded(2))
    assert torch.equal(first[0], other[0]) == (policy == "none")
    if not {"mixup", "cutmix"} & set(policy.split("+")):
        assert torch.equal(first[1], torch.eye(10)[labels])


def test_stages_keep_their_order_and_pixel_policies_the_given_one():
    images, labels = noise(32, 32), torch.arange(32)
    made = {p: augment(p, images, labels, 32, seeded())[0] for p in ("flip-crop+cutmix", "cutmix+flip-crop")}
    assert torch.equal(*made.values())
    made = {p: augment(p, images, labels, 32, seeded())[0] for p in ("crop+randaugment", "randaugment+crop")}
    assert not torch.equal(*made.values())


@pytest.mark.parametrize(
    "policy, said",
    [
        ("flip-corp", "'flip-corp'.*did you mean 'flip-crop'"),
        ("", "no policy ''"),
        ("mixup+cutmix", "only one of mixup, cutmix"),
        ("crop+crop", "once"),
    ],
)
def test_an_impossible_policy_is_refused(policy, said):
    with pytest.raises(ValueError, match=said):
        augment(policy, noise(2, 32), torch.zeros(2).long(), 2, seeded())


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy, floor", [("flip-crop", 37_500), ("autoaugment", 5_000), ("randaugment", 5_000), ("trivialaugment", 5_000)]
)
def test_a_core_augments_faster_than_small_networks_train(policy, floor):
    """A quarter of the speed aimed at (150,000 and 20,000 images/s), and the best of many batches:
    no chance failures."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images, labels, generator, seconds = noise(128, 32), torch.zeros(128).long(), seeded(), []
    for _ in range(30):
        start = time.perf_counter()
        augment(policy, images, labels, 10, generator)
        seconds.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    assert 128 / min(seconds) > floor
