"""One training: its fields, what each may be, and the key that is a hash of them."""

import hashlib
import json
import re
from functools import cached_property
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lwnb.base import doors, errors
from lwnb.plan import facts
from lwnb.plan.facts import POLICIES

RECIPE = 1
"""Version of the training recipe. Raise it when the same run would give other numbers for another reason than the order of
its sums, in which processors, threads and kernels differ too."""


KEY = "[0-9a-f]{12}"
"""The form of a run's key."""


def _model(name: str) -> str:
    facts.network(name)
    return name


def _policy(name: str) -> str:
    parts = name.split("+")
    if len(set(parts)) < len(parts) or {"mixup", "cutmix"} <= set(parts):
        raise ValueError("each part may stand once, and only one of mixup and cutmix")
    for part in parts:
        if part not in POLICIES:
            raise ValueError(f"allowed are {', '.join(POLICIES)}, joined by '+'{errors.nearest(part, POLICIES)}")
    return name


def _classes(text: str) -> str:
    if text != "all" and not re.fullmatch(r"\d+:\d+", text):
        raise ValueError("allowed are 'all' and a range of label numbers such as '0:5'")
    return text


def _weights(text: str) -> str:
    named = ["none", *facts.sources()]
    if text not in named and not re.fullmatch(rf"{KEY}|sha256:[0-9a-f]{{64}}", text):
        raise ValueError(
            f"allowed are {', '.join(map(repr, named))}, a run's key (12 hexadecimal digits) and 'sha256:<64 digits>'"
        )
    return text


def _start(text: str) -> str:
    named = ["none", *facts.sources()]
    if text not in named:
        raise ValueError(doors.allowed(text, named))
    return text


def _runtime(name: str) -> str:
    if name not in (known := facts.edge_runtimes()):
        raise ValueError(doors.allowed(name, known))
    return name


def _study(name: str) -> str:
    if name not in facts.STUDIES:
        raise ValueError(doors.allowed(name, facts.STUDIES))
    return name


Model = Annotated[str, AfterValidator(_model)]
Weights = Annotated[str, AfterValidator(_weights)]
Start = Annotated[str, AfterValidator(_start)]
Policy = Annotated[str, AfterValidator(_policy)]
Classes = Annotated[str, AfterValidator(_classes)]
Dataset = Literal["digits", "cifar10", "cifar100", "tiny-imagenet", "folder"]
DATASETS = get_args(Dataset)
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=10)]
Decay = Annotated[float, Field(ge=0, le=1)]
Batch = Annotated[int, Field(ge=2, le=8192)]
Pixels = Annotated[int, Field(ge=8, le=1024)]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["constant", "step", "cosine", "plateau"]
Stride = Literal[8, 16, 32]
Runtime = Annotated[str, AfterValidator(_runtime)]
Study = Annotated[str, AfterValidator(_study)]


class Source(BaseModel):
    """Where a data set comes from and which of its images count; see `lwnb.data.sets.load`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    dataset: Dataset
    digest: str = ""
    data_root: str | None = None
    pool_train: Count = 0
    pool_test: Count = 0
    bad_images: Literal["refuse", "skip"] = "refuse"


class Run(BaseModel):
    """One training. Every field enters the key, except `source` and `weights_file`, which only say where things lie."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    dataset: Dataset
    digest: str
    train_size: Count = 0
    test_size: Count = 0
    classes: Classes = "all"
    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    split_seed: Count = 0
    subset_seed: Count = 0
    image_size: Pixels
    model: Model
    output_stride: Stride = 32
    weights: Weights = "none"
    freeze: bool = False
    augment: Policy = "none"
    optimizer: Optimizer
    lr: Rate
    weight_decay: Decay
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Schedule
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    batch_size: Batch
    epochs: Positive
    select: Literal["best", "last"] = "best"
    patience: Count = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: Count = 0
    recipe: Positive = RECIPE

    source: Source | None = Field(default=None, exclude=True, repr=False)
    weights_file: str | None = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="after")
    def _consistent(self):
        mirrored = {"flip-crop"} & set(self.augment.split("+"))
        if self.dataset == "digits" and mirrored:
            raise ValueError(
                f"augment: {self.augment!r} mirrors images, and a mirrored digit is no digit: use 'crop' instead of 'flip-crop'"
            )
        if self.freeze and self.weights == "none":
            raise ValueError("freeze: a frozen backbone needs weights to start from, and weights is 'none'")
        return self

    @cached_property
    def key(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the run's fields as canonical JSON."""
        text = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def arm(self) -> str:
        """How the network starts: 'from scratch', 'frozen backbone' or 'fine-tuned'."""
        return "from scratch" if self.weights == "none" else "frozen backbone" if self.freeze else "fine-tuned"

    @property
    def parent(self) -> str | None:
        """The key of the run whose weights this one starts from, if it starts from one."""
        return self.weights if re.fullmatch(KEY, self.weights) else None
