"""Name -> network, head, output stride, initial weights."""

import functools
import hashlib
import itertools
import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from lwnb.params import LwnbError, ParamsError, nearest

MOMENTUM = 0.1
"""BatchNorm momentum of every network: torch's default. torchvision's MobileNetV3 has 0.01 and MNASNet 0.0003, and
their running statistics are stale after a short run."""

TRACE_SIZE = 224
"""Image size, in pixels, at which a network's strides are looked up: the usual one of ImageNet."""

AUXILIARY = ("googlenet", "inception_v3")
"""Networks that torchvision builds with auxiliary heads unless told otherwise."""


class WeightsError(LwnbError, RuntimeError):
    """Weights that cannot be had, read or loaded: the message says what failed and what to do."""


class Stage(NamedTuple):
    """One step down in resolution: its stride, and the layers that take it side by side."""

    stride: int
    layers: tuple[str, ...]


def build(name: str, num_classes: int, output_stride: int = 32, seed: int = 0) -> nn.Module:
    """A torchvision classification network with random weights and BatchNorm momentum 0.1.

    Parameters
    ----------
    name
        Any of `torchvision.models.list_models(module=torchvision.models)`.
    num_classes
        Length of the output: (N, 3, H, W) float32 -> (N, num_classes).
    output_stride
        Image size over the size of the last feature map. The earliest layers with a stride get stride 1 until it
        holds; a network whose published stride is not larger (SqueezeNet: 16) stays as published.
        Names and shapes of the weights do not depend on it.
    seed
        Determines the weights; the caller's random state is left alone.

    Raises
    ------
    ParamsError
        Unknown name, or a stride that the network's stages do not allow.
    """
    net = _network(name, num_classes, seed)
    net.architecture = name
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = MOMENTUM
    _start_head(net, seed)
    for stage in _flattened(name, output_stride):
        for layer in stage.layers:
            _flatten(net.get_submodule(layer))
    return net


def _start_head(net: nn.Module, seed: int) -> None:
    """One start for every head: weights N(0, 0.01²), biases 1, so that a new head guesses all classes alike.

    As published, heads start differently, and EfficientNetV2-S's so wide that its first loss is over twice that of a
    guess. A bias that all classes share changes no softmax; in SqueezeNet, whose head ends in a ReLU, it keeps every
    class's gradient alive at the start, where the published bias of 0 leaves half of them dead.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        for key in sorted(head_names(net.architecture)):
            if parameters[key].ndim > 1:
                parameters[key].normal_(0, 0.01, generator=generator)
            else:
                parameters[key].fill_(1.0)


def _network(name: str, num_classes: int, seed: int = 0) -> nn.Module:
    known = models.list_models(module=models)
    if name not in known:
        raise ParamsError(f"model: {name!r} is no classification network of torchvision{nearest(name, known)}")
    options = {}
    if name in AUXILIARY:  # transform_input: what their ImageNet weights expect
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return models.get_model(name, weights=None, num_classes=num_classes, **options)


def _skeleton(name: str, num_classes: int) -> nn.Module:
    """The network without storage: shapes only, in milliseconds."""
    try:
        with torch.device("meta"):
            return _network(name, num_classes)
    except NotImplementedError:  # RegNet computes its widths with tensors
        return _network(name, num_classes).to("meta")


@functools.cache
def stages(name: str) -> tuple[tuple[Stage, ...], int]:
    """Where a network lowers its resolution, earliest first, and its published output stride.

    One forward pass without storage finds the convolutions and poolings with a stride. Those with the same input size
    are one stage: a residual block and its shortcut, or the two branches of a ShuffleNet unit. What is lowered
    elsewhere (patch merging in Swin) counts in the published stride, and cannot be changed.
    """
    net, found, pooled = _skeleton(name, 2).eval(), {}, [TRACE_SIZE]
    for label, layer in net.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) and _side(layer.stride) > 1:
            layer.register_forward_hook(
                lambda layer, inputs, _, label=label: found.setdefault(inputs[0].shape[-1], {}).update({label: layer})
            )
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            layer.register_forward_hook(lambda _, inputs, __: pooled.append(inputs[0].shape[-1]))
    with torch.no_grad():
        net(torch.empty(1, 3, TRACE_SIZE, TRACE_SIZE, device="meta"))
    steps = tuple(
        Stage(max(_side(layer.stride) for layer in found[size].values()), tuple(found[size]))
        for size in sorted(found, reverse=True)
    )
    seen = math.prod(stage.stride for stage in steps)
    elsewhere = TRACE_SIZE // (seen * min(size for size in pooled if size > 1))
    return steps, seen * max(1, elsewhere)


def _flattened(name: str, output_stride: int) -> tuple[Stage, ...]:
    """The stages that get stride 1 for this output stride."""
    steps, published = stages(name)
    if published <= output_stride:
        return ()
    reachable = list(itertools.accumulate((s.stride for s in steps), lambda left, s: left // s, initial=published))
    if output_stride not in reachable:
        allowed = ", ".join(map(str, reachable))
        raise ParamsError(f"output_stride: {output_stride} is not possible for {name}, whose stages allow {allowed}")
    return steps[: reachable.index(output_stride)]


def _flatten(layer: nn.Module) -> None:
    """Stride 1 and 'same' padding, so that the map keeps its size also where the published layer has no padding."""
    side = _side(layer.kernel_size)
    if isinstance(layer, nn.Conv2d):
        layer.stride = (1, 1)
        layer.padding = (side // 2, side // 2) if side % 2 else "same"  # 'same' pads even kernels on one side
    else:
        side -= 1 - side % 2  # no symmetric padding suits an even pooling window: one narrower
        layer.kernel_size, layer.stride, layer.padding = side, 1, side // 2


def _side(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else max(size)


@functools.cache
def head_names(name: str) -> frozenset[str]:
    """Names in the state dict of the tensors whose shape depends on the number of classes."""
    two, three = (_skeleton(name, n).state_dict() for n in (2, 3))
    return frozenset(key for key in two if two[key].shape != three[key].shape)


def freeze(net: nn.Module, name: str) -> list[nn.Module]:
    """Let training change the head of network `name` alone.

    Returns
    -------
    The modules that must stay in evaluation mode, so that the backbone keeps its source's BatchNorm statistics and
    drops nothing out: the network itself, for its head is one linear layer and knows no modes.
    """
    head = head_names(name)
    for key, parameter in net.named_parameters():
        parameter.requires_grad_(key in head)
    return [net.eval()]


def load_backbone(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy all but the head from a state dict into a network of `build`; its head stays as it is.

    Raises
    ------
    WeightsError
        A tensor of the backbone is missing, unknown, or of another shape: the first of each are listed.
    """
    head = head_names(net.architecture)
    have = {key: tuple(t.shape) for key, t in state.items() if key not in head}
    want = {key: tuple(t.shape) for key, t in net.state_dict().items() if key not in head}
    faults = {
        # a counter that a fixed momentum never reads, and that older files lack
        "missing": [key for key in want if key not in have and not key.endswith("num_batches_tracked")],
        "not in the network": [key for key in have if key not in want],
        "of another shape": [
            f"{key} {have[key]} for {want[key]}" for key in want if key in have and have[key] != want[key]
        ],
    }
    if any(faults.values()):
        lines = [f"{len(keys)} {what}: {', '.join(keys[:3])}" for what, keys in faults.items() if keys]
        raise WeightsError(f"these are not the weights of a {net.architecture}: {'; '.join(lines)}")
    net.load_state_dict({key: state[key] for key in have}, strict=False)


def read(path: str | Path) -> dict[str, Tensor]:
    """A state dict from a `.safetensors`, `.pt` or `.pth` file; nothing in the file is executed.

    Raises
    ------
    WeightsError
        The file is missing, of another kind, damaged, or holds something else than named tensors.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsError(f"{file}: there is no such file of weights")
    if file.suffix not in (".safetensors", ".pt", ".pth"):
        raise WeightsError(f"{file}: weights are read from .safetensors, .pt and .pth files, not {file.suffix!r}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise WeightsError(f"{file}: damaged, or no file of weights: {error}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{file}: expected a state dict (names to tensors); save `net.state_dict()` alone")
    return dict(state)


def imagenet(name: str) -> dict[str, Tensor]:
    """torchvision's `IMAGENET1K_V1` weights, from its cache or its download, by the hash in the file's name.

    Raises
    ------
    WeightsError
        They cannot be had, or the cached file is damaged: what failed, where the file belongs, what to do instead.
    """
    choices = models.get_model_weights(name).__members__
    if "IMAGENET1K_V1" not in choices:
        have = ", ".join(key for key in choices if key != "DEFAULT")
        raise WeightsError(f"torchvision has no IMAGENET1K_V1 weights of {name}, only {have or 'none at all'}")
    weights = choices["IMAGENET1K_V1"]
    file = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    if file.exists():
        _verify(file)
    try:
        state = weights.get_state_dict(check_hash=True, progress=False, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, or a download of another content
        raise WeightsError(
            f"ImageNet weights of {name}: {weights.url} could not be downloaded ({error}). They belong in {file}: run "
            "this once where there is a network, or copy the file there from such a machine (TORCH_HOME moves the "
            "place). Without them, 'source: classes' pretrains on other classes, and 'weights: none' starts at random"
        ) from None
    return _current(name, state)


def _verify(file: Path) -> None:
    expected = re.search(r"-([0-9a-f]{8,})\.", file.name)[1]
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(expected):
        raise WeightsError(
            f"{file}: damaged (SHA-256 begins {found[:8]}, not {expected}): delete it to have it downloaded again"
        )


def _current(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under today's names (DenseNet's were saved as `norm.1`), without auxiliary heads."""
    if name.startswith("densenet"):
        state = {re.sub(r"(norm|conv)\.([12])\.", r"\1\2.", key): value for key, value in state.items()}
    return {key: value for key, value in state.items() if not key.startswith(("aux", "AuxLogits"))}
