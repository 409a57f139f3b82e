"""One training: its fields, what each may be, and the key that is a hash of them."""

import hashlib
import json
import re
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lwnb.base import doors
from lwnb.plan import facts
from lwnb.plan.facts import DATASETS, POLICIES

RECIPE = 1
"""Version of the training recipe. Raise it when the same run would give other numbers for another reason than the
order of its sums, in which processors, threads and kernels differ too."""


KEY = "[0-9a-f]{12}"
"""The form of a run's key."""


def _model(name: str) -> str:
    facts.network(name)
    return name


def policies(augment: str) -> list[str]:
    """The names of the augmentation policies that one such as "crop+mixup" joins.

    Raises
    ------
    ValueError
        A name that no policy has or that stands twice, or two policies that mix images.
    """
    names = augment.split("+")
    for name in names:
        if name not in POLICIES:
            raise ValueError(f"there is no policy {name!r}; joined by '+', {doors.allowed(name, POLICIES)}")
    mixing = [name for name, policy in POLICIES.items() if policy.stage == "mixing"]
    if len(set(names)) < len(names) or len(set(names) & set(mixing)) > 1:
        raise ValueError(f"each policy may stand once, and only one of {', '.join(mixing)}")
    return names


def _policy(augment: str) -> str:
    policies(augment)
    return augment


def why_unmirrored(dataset: str, augment: str, mirror_safe: bool = True) -> str:
    """Why a policy cannot be used on a data set's images: it mirrors them, and they would lose their label; else ''."""
    mirrors = any(POLICIES[name].mirrors for name in policies(augment))
    why = DATASETS[dataset].unmirrored or ("" if mirror_safe else "mirror_safe is false")
    if not (mirrors and why):
        return ""
    return f"augment: {augment!r} mirrors images, and {why}: use policies that do not, such as 'crop'"


def _dataset(name: str) -> str:
    if name not in DATASETS:
        raise ValueError(doors.allowed(name, DATASETS))
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
Dataset = Annotated[str, AfterValidator(_dataset)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]
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


FIRST = (
    "dataset", "digest", "train_size", "test_size", "classes", "val_share", "split_seed", "subset_seed",
    "image_size", "model", "output_stride", "weights", "freeze", "augment", "optimizer", "lr", "weight_decay",
    "label_smoothing", "schedule", "warmup_epochs", "batch_size", "epochs", "select", "patience", "precision",
    "seed", "recipe",
)  # fmt: skip
"""The fields of a run in the first edition: its canonical form always has them. A field that came later has a default
that means "as before", and is left out of the form while it has it, so that published keys never change."""


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
        if why := why_unmirrored(self.dataset, self.augment):
            raise ValueError(why)
        if self.freeze and self.weights == "none":
            raise ValueError("freeze: a frozen backbone needs weights to start from, and weights is 'none'")
        return self

    @cached_property
    def key(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the run's canonical form as JSON; see `FIRST`."""
        fields, values = type(self).model_fields, self.model_dump()
        form = {name: value for name, value in values.items() if name in FIRST or value != fields[name].default}
        text = json.dumps(form, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def arm(self) -> str:
        """How the network starts: 'from scratch', 'frozen backbone' or 'fine-tuned'."""
        return "from scratch" if self.weights == "none" else "frozen backbone" if self.freeze else "fine-tuned"

    @property
    def parent(self) -> str | None:
        """The key of the run whose weights this one starts from, if it starts from one."""
        return self.weights if re.fullmatch(KEY, self.weights) else None
