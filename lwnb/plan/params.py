"""The parameters of a page: names, types and ranges, and what a wrong one is told."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lwnb.base import errors
from lwnb.base.errors import ParamsError
from lwnb.plan import facts
from lwnb.plan.facts import DATASETS, FIVE
from lwnb.plan.run import (
    RECIPE,
    Batch,
    Count,
    Dataset,
    Decay,
    Model,
    Optimizer,
    Pixels,
    Policy,
    Positive,
    Rate,
    Runtime,
    Schedule,
    Start,
    Stride,
    Study,
    why_unmirrored,
)

UNUSABLE = re.compile(r"[<>`$*|\\{}\[\]]|\b_|_\b|(?<!\S)#")
"""What no title may hold: it stands in headings, links and tables of contents, where Markdown takes these for its own
signs: '_' at an end of a word, '#' at its beginning."""

LONGEST = 80
"""Characters of a title or of a page's name."""


def _title(text: str) -> str:
    if not text[:1].isalnum() or len(text) > LONGEST or not text.isprintable() or text != text.strip():
        raise ValueError(f"a title is one line of 1 to {LONGEST} characters that begins with a letter or a digit")
    if found := UNUSABLE.search(text):
        raise ValueError(f"a title cannot hold {found[0]!r} there: leave it out, or write a word for it")
    return text


Title = Annotated[str, AfterValidator(_title)]


class Params(BaseModel):
    """The parameters of a page: the union over the studies.

    Defaults serve every data set. What belongs to one of them is empty (0 or '') until `lwnb.batch.grid.pin` reads it
    from the images.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    # page
    notebooks: Annotated[list[Study], Field(min_length=1, default_factory=lambda: list(facts.STUDIES))]
    # data
    title: Title = ""
    dataset: Dataset = "digits"
    data_root: str | None = None
    digest: str = ""
    num_classes: Count = 0
    pool_train: Count = 0
    pool_test: Count = 0
    bad_images: Literal["refuse", "skip"] = "refuse"
    mirror_safe: bool = True
    train_size: Count = 500
    test_size: Count = 0
    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    subset_seed: Count = 0
    image_size: Pixels = 32
    output_stride: Stride = 32
    # training
    budget: str = "quick"
    models: Annotated[list[Model], Field(min_length=1)] = list(FIVE)
    weights: Start = "none"
    seeds: Positive = 1
    first_seed: Count = 0
    epochs: Positive = 8
    batch_size: Batch = 32
    optimizer: Optimizer = "adamw"
    lr: Rate = 1.0e-3
    tune_lrs: list[Rate] = []
    tune_epochs: Count = 0
    weight_decay: Decay = 0.05
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    schedule: Schedule = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    augment: Policy = "crop"
    select: Literal["best", "last"] = "best"
    patience: Count = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    recipe: Annotated[int, Field(ge=1, le=RECIPE)] = RECIPE
    # transfer
    transfer_model: Model = "mobilenet_v3_small"
    source: str = "classes"
    source_train_size: Count = 400
    source_epochs: Positive = 8
    transfer_sizes: Annotated[list[Count], Field(min_length=1)] = [100, 400]
    transfer_lrs: Annotated[list[Rate], Field(min_length=1)] = [1.0e-3, 4.0e-3]
    # augmentation
    augment_model: Model = "mobilenet_v3_small"
    policies: Annotated[list[Policy], Field(min_length=1)] = [
        "none", "crop", "trivialaugment", "random-erasing", "mixup", "cutmix",
    ]  # fmt: skip
    augment_seeds: Count = 0
    # hyperparameters
    hyper_model: Model = "mobilenet_v3_small"
    design: Literal["grid", "sobol"] = "sobol"
    trials: Positive = 4
    hyper_seeds: Count = 0
    hyper_optimizers: Annotated[list[Optimizer], Field(min_length=1)] = ["sgd", "adamw"]
    sgd_lrs: Annotated[list[Rate], Field(min_length=1)] = [0.01, 0.2]
    adamw_lrs: Annotated[list[Rate], Field(min_length=1)] = [5.0e-4, 1.0e-2]
    hyper_batch_sizes: Annotated[list[Batch], Field(min_length=1)] = [16, 32, 64]
    hyper_schedules: Annotated[list[Schedule], Field(min_length=1)] = ["constant", "cosine"]
    hyper_weight_decays: Annotated[list[Decay], Field(min_length=1)] = [5.0e-4, 0.05]
    # deployment
    runtimes: list[Runtime] = [facts.REFERENCE]
    device_rounds: Positive = 1

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: dict) -> dict:
        """What a known data set says by itself: its name as the title, and its number of classes."""
        dataset = str(values.get("dataset", cls.model_fields["dataset"].default))
        if not (row := DATASETS.get(dataset)):
            return values  # refused later
        known = {"title": row.title, "num_classes": row.classes}
        return values | {name: value for name, value in known.items() if not values.get(name)}

    @model_validator(mode="after")
    def _consistent(self):
        row = DATASETS[self.dataset]
        if self.num_classes != (classes := row.classes or self.num_classes):
            raise ValueError(
                f"num_classes: {self.num_classes} is not possible: {self.dataset} has {classes} classes; leave it out"
            )
        for policy in [self.augment, *self.policies]:
            if why := why_unmirrored(self.dataset, policy, self.mirror_safe):
                raise ValueError(why)
        for model, source in [*((model, self.weights) for model in self.models), (self.transfer_model, self.source)]:
            if source in facts.sources():
                facts.published_weights(model, source)  # or refused
        if self.source == self.dataset:
            raise ValueError(
                f"source: {self.source!r} is the page's own data set: "
                "name another one, or 'classes' for its other classes"
            )
        if row.own and not self.data_root:
            raise ValueError(f"data_root: dataset {self.dataset!r} needs a folder of images; set data_root to its path")
        return self


def check(values: dict) -> Params:
    """Parameters from a flat mapping.

    Raises
    ------
    ParamsError
        One line for each fault: the name, the value, what is allowed, the nearest valid name.
    """
    try:
        return Params(**values)
    except ValidationError as error:
        raise ParamsError("\n".join(_explain(e) for e in error.errors())) from None


def _explain(error: dict) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near, known = errors.nearest(name, Params.model_fields), ", ".join(Params.model_fields)
        return f"{name}: unknown parameter{near} Known are: {known}"
    message = error["msg"].removeprefix("Value error, ")
    if not name:
        return message
    value, hint = error["input"], ""
    if error["type"] == "literal_error":
        hint = errors.nearest(value, re.findall(r"'([^']+)'", error["ctx"]["expected"]))
    elif error["type"] == "float_type" and isinstance(value, str):
        hint = " (YAML reads 1e-3 as text: write 1.0e-3)"
    elif error["type"] == "list_type":
        hint = f": write a list, such as {name}=[{value}]"
    elif error["type"] == "string_type" and not isinstance(value, list | dict | None):
        hint = " (YAML does not read it as text: write it in quotes)"
    return f"{name}: {value!r} is not possible: {message}{hint}"
