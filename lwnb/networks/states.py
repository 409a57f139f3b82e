"""Weights as named tensors: read from files, downloaded, and put into a network's backbone."""

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from lwnb.base import doors
from lwnb.base.errors import WeightsError
from lwnb.networks import plain
from lwnb.plan import facts


def load_backbone(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy all but the head from a state dict into a network of `build`; its head stays as it is.

    Raises
    ------
    WeightsError
        A tensor of the backbone is missing, unknown, or of another shape: the first of each are listed.
    """
    head = plain.head_names(net.architecture)
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


def from_file(path: str | Path) -> dict[str, Tensor]:
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


def published(name: str, source: str) -> dict[str, Tensor]:
    """The published weights of a network that have this name, such as `imagenet`.

    Raises
    ------
    ParamsError
        It has none of this name.
    WeightsError
        They cannot be had.
    """
    return doors.resolve(facts.published_weights(name, source).load)(name)


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
