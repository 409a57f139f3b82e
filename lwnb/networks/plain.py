"""Networks as their library publishes them, and which of their tensors are the head."""

import functools

import torch
from torch import nn
from torchvision import models

from lwnb.base import doors
from lwnb.plan import facts

AUXILIARY = ("googlenet", "inception_v3")
"""Networks that torchvision builds with auxiliary heads unless told otherwise."""


def names_of_torchvision() -> list[str]:
    """The names of torchvision's classification networks."""
    return models.list_models(module=models)


def of_torchvision(name: str, num_classes: int) -> nn.Module:
    """A classification network of torchvision with random weights."""
    options = {}
    if name in AUXILIARY:  # transform_input: what their ImageNet weights expect
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    return models.get_model(name, weights=None, num_classes=num_classes, **options)


def published(name: str, num_classes: int, seed: int = 0) -> nn.Module:
    """The network that its row in `lwnb.plan.facts` builds; the seed determines its weights."""
    make = doors.resolve(facts.network(name).build)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make(name, num_classes)


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
