"""Networks as their library publishes them, and which of their tensors are the head."""

import functools

import torch
from torch import nn
from torchvision import models

from lwnb.base.errors import ParamsError, nearest

AUXILIARY = ("googlenet", "inception_v3")
"""Networks that torchvision builds with auxiliary heads unless told otherwise."""


def published(name: str, num_classes: int, seed: int = 0) -> nn.Module:
    known = models.list_models(module=models)
    if name not in known:
        raise ParamsError(f"model: {name!r} is no classification network of torchvision{nearest(name, known)}")
    options = {}
    if name in AUXILIARY:  # transform_input: what their ImageNet weights expect
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return models.get_model(name, weights=None, num_classes=num_classes, **options)


def skeleton(name: str, num_classes: int) -> nn.Module:
    """The network without storage: shapes only, in milliseconds."""
    try:
        with torch.device("meta"):
            return published(name, num_classes)
    except NotImplementedError:  # RegNet computes its widths with tensors
        return published(name, num_classes).to("meta")


@functools.cache
def head_names(name: str) -> frozenset[str]:
    """Names in the state dict of the tensors whose shape depends on the number of classes."""
    two, three = (skeleton(name, n).state_dict() for n in (2, 3))
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
