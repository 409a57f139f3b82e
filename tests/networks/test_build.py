import functools
import hashlib
import http.server
import threading
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from lwnb.base import errors
from lwnb.base.errors import ParamsError
from lwnb.networks import build, plain, states
from lwnb.plan.facts import FIVE

LAST = {"resnet18": "layer4", "shufflenet_v2_x1_0": "conv5"}  # elsewhere `features`

# By hand: the sizes are divisible by 32 and every layer with a stride is padded, so the side is size / stride ...
SIDES = {32: {32: 1, 16: 2, 8: 4}, 64: {32: 2, 16: 4, 8: 8}, 224: {32: 7, 16: 14, 8: 28}}
# ... but SqueezeNet has stride 16, no padding, and poolings that round up: 32 -> 15 -> 7 -> 3 -> 1, 64 -> 31 -> 15 -> 7
# -> 3, 224 -> 111 -> 55 -> 27 -> 13; at stride 8 the stem keeps the size and each pooling halves it, rounding up.
SQUEEZED = {32: {32: 1, 16: 1, 8: 4}, 64: {32: 3, 16: 3, 8: 8}, 224: {32: 13, 16: 13, 8: 28}}


def last_map(net, layer, size):
    """The shape of a layer's output, found without arithmetic."""
    seen = []
    net.get_submodule(layer).register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape[1:])))
    net.to("meta").eval()(torch.empty(1, 3, size, size, device="meta"))
    return seen[0]


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("name", FIVE)
def test_last_feature_map_has_the_size_worked_out_by_hand(name, stride):
    net = build.build(name, 10, stride)
    table = SQUEEZED if name == "squeezenet1_1" else SIDES
    for size, sides in table.items():
        assert last_map(net, LAST.get(name, "features"), size)[1:] == (sides[stride], sides[stride]), size


@pytest.mark.parametrize(
    "name, stride, layer, expected",
    [
        ("convnext_tiny", 8, "features", (768, 4, 4)),  # a 4 x 4 stem without padding: an even kernel
        ("vgg11", 16, "features", (512, 2, 2)),  # 2 x 2 poolings
        ("swin_t", 8, "features", (4, 4, 768)),  # patch merging lowers by 8 outside of any convolution
        ("regnet_x_400mf", 16, "trunk_output", (400, 2, 2)),  # torchvision cannot build it without storage
    ],
)
def test_stride_of_other_networks(name, stride, layer, expected):
    assert last_map(build.build(name, 10, stride), layer, 32) == expected


@pytest.mark.parametrize("name", FIVE)
def test_published_stride_leaves_the_network_as_torchvision_has_it(name):
    net = build.build(name, 10, 32, seed=3).eval()
    theirs = torchvision.models.get_model(name, weights=None, num_classes=10).eval()
    theirs.load_state_dict(net.state_dict())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(net(images), theirs(images))
    lowered = build.build(name, 10, 8, seed=3).state_dict()
    assert all(torch.equal(lowered[key], value) for key, value in net.state_dict().items())
    assert list(lowered) == list(net.state_dict())


def test_stride_8_of_resnet18_changes_the_stem_and_its_pooling_alone():
    ours, theirs = build.build("resnet18", 10, 8), build.build("resnet18", 10, 32)
    changed = {
        label
        for label, layer in ours.named_modules()
        if not any(layer.children()) and str(layer) != str(theirs.get_submodule(label))
    }
    assert changed == {"conv1", "maxpool"}
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for layer in changed:  # the same filter at every pixel, and at every second one
        dense, sparse = ours.get_submodule(layer), theirs.get_submodule(layer)
        torch.testing.assert_close(dense(images)[:, :, ::2, ::2], sparse(images))


@pytest.mark.parametrize(
    "name, stride, message",
    [
        ("vit_b_16", 8, "output_stride: 8 .* vit_b_16, whose stages allow 16, 1"),
        ("alexnet", 16, "output_stride: 16 .* alexnet, whose stages allow 32, 8, 4, 2, 1"),
        ("resnet17", 32, "'resnet17'.*torchvision.*'resnet18'"),
        ("fasterrcnn_resnet50_fpn", 32, "'fasterrcnn_resnet50_fpn'"),
    ],
)
def test_impossible_network_or_stride_is_refused(name, stride, message):
    with pytest.raises(ParamsError, match=message):
        build.build(name, 10, stride)


def test_auxiliary_heads_are_left_out():
    net = build.build("googlenet", 10).train()
    assert net(torch.rand(2, 3, 64, 64)).shape == (2, 10)  # with them it returns three outputs


@pytest.mark.parametrize("name", FIVE)
def test_batchnorm_momentum(name):
    norms = [m for m in build.build(name, 10).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == (set() if name == "squeezenet1_1" else {0.1})


def test_statistics_follow_a_short_run():
    """After n batches of mean m the running mean is (1 - 0.9^n) m; with torchvision's 0.01 it is (1 - 0.99^n) m."""
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    theirs = torchvision.models.mobilenet_v3_small(num_classes=10)
    for net, expected in ((build.build("mobilenet_v3_small", 10), 1 - 0.9**30), (theirs, 1 - 0.99**30)):
        convolution, norm = net.features[0][0], net.features[0][1].train()
        with torch.no_grad():
            features = convolution(images)
            for _ in range(30):
                norm(features)
        torch.testing.assert_close(norm.running_mean, expected * features.mean((0, 2, 3)))


def test_seed_alone_determines_the_weights():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build.build("shufflenet_v2_x1_0", 10, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = (build.build("shufflenet_v2_x1_0", 10, seed=seed).state_dict() for seed in (5, 6))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])


@pytest.mark.parametrize("name, head", list(zip(FIVE, ("classifier.3", "fc", "classifier.1", "classifier.1", "fc"))))
def test_head(name, head):
    assert plain.head_names(name) == {f"{head}.weight", f"{head}.bias"}


def test_backbone_is_copied_and_the_head_kept():
    source, net = build.build("resnet18", 7, seed=1), build.build("resnet18", 10, 8, seed=2)
    head = net.fc.weight.clone()
    state = {key: t for key, t in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    states.load_backbone(net, state)
    assert torch.equal(net.fc.weight, head)
    for key, value in net.state_dict().items():
        assert key.startswith("fc.") or torch.equal(value, source.state_dict()[key]), key


def test_weights_that_do_not_fit_are_refused_and_nothing_is_copied():
    net = build.build("resnet18", 10)
    whole = build.build("resnet18", 10, seed=1).state_dict()
    holed = {key: value for key, value in whole.items() if key != "layer1.0.bn1.running_var"}
    cut = whole | {"conv1.weight": whole["conv1.weight"][:, :1]}
    larger = build.build("resnet34", 10).state_dict()  # has every tensor of resnet18, and more
    for state, message in (
        (holed, r"resnet18: 1 missing: layer1\.0\.bn1\.running_var"),
        (cut, r"1 of another shape: conv1\.weight \(64, 1, 7, 7\) for \(64, 3, 7, 7\)"),
        (larger, r"\d+ not in the network: layer1\.2\.conv1\.weight"),
    ):
        with pytest.raises(errors.WeightsError, match=message):
            states.load_backbone(net, state)
    assert torch.equal(net.conv1.weight, build.build("resnet18", 10).conv1.weight)


def test_training_a_frozen_network_changes_its_head_alone():
    net = build.build("mobilenet_v3_small", 3)
    kept = plain.freeze(net, "mobilenet_v3_small")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net.train()
    for module in kept:
        module.eval()
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.nn.functional.cross_entropy(net(images), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"classifier.3.weight", "classifier.3.bias"}


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_reading_files(tmp_path):
    state = {"a": torch.arange(3.0), "b.c": torch.ones(2, 2)}
    save_file(state, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "x.pt")
    for name in ("x.safetensors", "x.pt"):
        loaded = states.from_file(tmp_path / name)
        assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)
        cut = tmp_path / f"cut-{name}"
        cut.write_bytes((tmp_path / name).read_bytes()[:-30])
        with pytest.raises(errors.WeightsError, match=f"{cut.name}: damaged"):
            states.from_file(cut)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pth")
    torch.save(Bomb(tmp_path / "ran"), tmp_path / "bomb.pt")
    (tmp_path / "x.h5").touch()
    for name, message in (
        ("checkpoint.pth", "expected a state dict"),
        ("bomb.pt", "damaged"),
        ("none.pt", "no such file"),
        ("x.h5", r"not '\.h5'"),
    ):
        with pytest.raises(errors.WeightsError, match=message):
            states.from_file(tmp_path / name)
    assert not (tmp_path / "ran").exists()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Put a state dict behind torchvision's address of a network's weights; returns the file and how to stop."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(Quiet, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def close():
        server.shutdown()
        server.server_close()

    def publish(name, state):
        file = tmp_path / "weights.pth"
        torch.save(state, file)
        file = file.rename(tmp_path / f"{name}-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth")
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        monkeypatch.setattr(weights.value, "url", f"http://127.0.0.1:{server.server_port}/{file.name}")
        return file, close

    yield publish
    close()


def test_imagenet_is_downloaded_once(serve):
    state = {"fc.weight": torch.ones(2, 2)}
    _, close = serve("resnet18", state)
    for _ in range(2):
        assert torch.equal(states.imagenet("resnet18")["fc.weight"], state["fc.weight"])
        close()  # so the second time it comes from the cache


def test_imagenet_under_todays_names(serve):
    old = ("features.denseblock1.denselayer2.norm.1.weight", "features.transition1.norm.weight")
    serve("densenet121", {key: torch.ones(1) for key in old})
    today = states.imagenet("densenet121")
    assert set(today) == {"features.denseblock1.denselayer2.norm1.weight", "features.transition1.norm.weight"}
    assert set(today) < set(torchvision.models.densenet121().state_dict())


def test_imagenet_without_a_network(serve, tmp_path):
    file, close = serve("resnet18", {})
    close()
    with pytest.raises(errors.WeightsError) as error:
        states.imagenet("resnet18")
    place = tmp_path / "home" / "hub" / "checkpoints" / file.name
    for part in ("resnet18", "refused", str(place), "source: classes", "weights: none"):
        assert part in str(error.value)


def test_cut_download_leaves_nothing(serve, tmp_path):
    file, _ = serve("resnet18", {"a": torch.ones(99)})
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(errors.WeightsError, match="invalid hash value"):
        states.imagenet("resnet18")
    assert not list((tmp_path / "home" / "hub" / "checkpoints").iterdir())


def test_cut_file_in_the_cache_is_refused(serve, tmp_path):
    file, _ = serve("resnet18", {"a": torch.ones(99)})
    states.imagenet("resnet18")
    cached = tmp_path / "home" / "hub" / "checkpoints" / file.name
    cached.write_bytes(cached.read_bytes()[:-1])
    with pytest.raises(errors.WeightsError, match=f"{file.name}: damaged .*delete it"):
        states.imagenet("resnet18")


def test_imagenet_of_a_network_that_has_none():
    with pytest.raises(errors.WeightsError, match="vit_h_14, only IMAGENET1K_SWAG_E2E_V1"):
        states.imagenet("vit_h_14")
