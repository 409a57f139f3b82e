"""What a run is: validated names, types and ranges; YAML files; the run's key."""

import ast
import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

RECIPE = 1
"""Version of the training recipe. Raise it when the same run would give other numbers for another reason than the order of
its sums, in which processors, threads and kernels differ too."""

CHECKOUT = Path(__file__).resolve().parents[1]
"""Where `notebooks/`, `params/`, `book/` and `_config.yml` lie."""

FIVE = ("mobilenet_v3_small", "resnet18", "squeezenet1_1", "efficientnet_v2_s", "shufflenet_v2_x1_0")
"""The networks of arXiv 2505.03303."""

POLICIES = (
    "none", "crop", "flip-crop", "autoaugment", "randaugment", "trivialaugment",
    "random-erasing", "mixup", "cutmix",
)  # fmt: skip


KEY = "[0-9a-f]{12}"
"""The form of a run's key."""


class LwnbError(Exception):
    """What the user can mend: its message names the value, what is allowed and what to do. The commands show nothing more."""


class ParamsError(LwnbError, ValueError):
    """A parameter that cannot be: the message names it, its value, and what is allowed."""


PLACES = ("LWNB_HOME", "LWNB_RESULTS")
"""The variables of the environment that name folders; empty ones count as not set, and `~` is the user's own folder."""


def home() -> Path:
    """The folder of `runs/`, `results/`, `data/` and `build/`: `$LWNB_HOME`, else the checkout.

    Raises
    ------
    ParamsError
        It is relative, and nobody knows to what: see `settle`.
    """
    return _place("LWNB_HOME", CHECKOUT)


def shelves() -> list[Path]:
    """Where records lie, in the order in which they are looked up: `runs/` and `results/` of the home, and published ones.

    The last is `$LWNB_RESULTS`, else the checkout's `results/`. No run writes to any but the first.
    """
    return list(dict.fromkeys([home() / "runs", home() / "results", _place("LWNB_RESULTS", CHECKOUT / "results")]))


def settle() -> None:
    """Make `PLACES` whole paths in the environment, so that kernels and workers, which stand elsewhere, mean the same."""
    for name in PLACES:
        if text := os.environ.get(name):
            os.environ[name] = str(Path(text).expanduser().absolute())


def _place(name: str, usual: Path) -> Path:
    path = Path(os.environ.get(name) or usual).expanduser()
    if not path.is_absolute():
        raise ParamsError(f"{name}: {str(path)!r} is relative, and it is not known to what: write the whole path")
    return path.resolve()


def nearest(name: str, known) -> str:
    """`"; did you mean 'x'?"`, or nothing when no known name is near."""
    match = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f"; did you mean {match[0]!r}?" if match else ""


def _model(name: str) -> str:
    if name in FIVE:
        return name
    from torchvision import models  # only for the rarer networks: costs seconds

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"no classification network of torchvision has this name{nearest(name, [*FIVE, *known])}")
    return name


def _policy(name: str) -> str:
    parts = name.split("+")
    if len(set(parts)) < len(parts) or {"mixup", "cutmix"} <= set(parts):
        raise ValueError("each part may stand once, and only one of mixup and cutmix")
    for part in parts:
        if part not in POLICIES:
            raise ValueError(f"allowed are {', '.join(POLICIES)}, joined by '+'{nearest(part, POLICIES)}")
    return name


def _classes(text: str) -> str:
    if text != "all" and not re.fullmatch(r"\d+:\d+", text):
        raise ValueError("allowed are 'all' and a range of label numbers such as '0:5'")
    return text


UNUSABLE = re.compile(r"[<>`$*|\\{}\[\]]|\b_|_\b|(?<!\S)#")
"""What no title may hold: it stands in headings, links and tables of contents, where Markdown takes these for its own signs:
'_' at an end of a word, '#' at its beginning."""

LONGEST = 80
"""Characters of a title or of a page's name."""


def _title(text: str) -> str:
    if not text[:1].isalnum() or len(text) > LONGEST or not text.isprintable() or text != text.strip():
        raise ValueError(f"a title is one line of 1 to {LONGEST} characters that begins with a letter or a digit")
    if found := UNUSABLE.search(text):
        raise ValueError(f"a title cannot hold {found[0]!r} there: leave it out, or write a word for it")
    return text


def _weights(text: str) -> str:
    if text not in ("none", "imagenet") and not re.fullmatch(rf"{KEY}|sha256:[0-9a-f]{{64}}", text):
        raise ValueError("allowed are 'none', 'imagenet', a run's key (12 hexadecimal digits) and 'sha256:<64 digits>'")
    return text


Title = Annotated[str, AfterValidator(_title)]
Model = Annotated[str, AfterValidator(_model)]
Weights = Annotated[str, AfterValidator(_weights)]
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
Runtime = Literal["onnxruntime", "executorch", "openvino"]


class Source(BaseModel):
    """Where a data set comes from and which of its images count; see `lwnb.data.load`."""

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


STUDIES = ("01_architectures", "02_transfer", "03_augmentation", "04_hyperparameters", "05_deployment")
"""The studies by the name of their notebook."""


PUBLISHED = ("cifar10-cpu", "cifar100-cpu", "tiny-imagenet-cpu", "cifar10-all", "cifar10-long")
"""The pages whose every run stands in `results/`: the report shows them where no page is asked for."""


CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "tiny-imagenet": 200}
"""How many classes a known data set has; those of a `folder` are read from the images."""

TITLES = {
    "digits": "Digits",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny-imagenet": "Tiny ImageNet",
    "folder": "My images",
}
"""A data set's name in print, and the title of a page that has none of its own."""


class Params(BaseModel):
    """The parameters of a page: the union over the studies.

    Defaults serve every data set. What belongs to one of them is empty (0 or '') until `lwnb.grid.pin` reads it from the images.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    # page
    notebooks: Annotated[list[Literal[STUDIES]], Field(min_length=1)] = list(STUDIES)
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
    weights: Literal["none", "imagenet"] = "none"
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
    runtimes: list[Runtime] = ["onnxruntime"]
    device_rounds: Positive = 1

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: dict) -> dict:
        """What a known data set says by itself: its name as the title, and its number of classes."""
        dataset = values.get("dataset", "digits")
        known = {"title": TITLES, "num_classes": CLASSES}
        return values | {name: of[dataset] for name, of in known.items() if not values.get(name) and dataset in of}

    @model_validator(mode="after")
    def _consistent(self):
        classes = CLASSES.get(self.dataset, self.num_classes)
        if self.num_classes != classes:
            raise ValueError(
                f"num_classes: {self.num_classes} is not possible: {self.dataset} has {classes} classes; leave it out"
            )
        for policy in [self.augment, *self.policies]:
            if "flip" in policy and (self.dataset == "digits" or not self.mirror_safe):
                why = "a mirrored digit is no digit" if self.dataset == "digits" else "mirror_safe is false"
                raise ValueError(f"augment: {policy!r} mirrors images, and {why}: use 'crop' instead of 'flip-crop'")
        if self.source == self.dataset:
            raise ValueError(
                f"source: {self.source!r} is the page's own data set: name another one, or 'classes' for its other classes"
            )
        if self.dataset == "folder" and not self.data_root:
            raise ValueError("data_root: dataset 'folder' needs the folder of images; set data_root to its path")
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
        return (
            f"{name}: unknown parameter{nearest(name, Params.model_fields)} Known are: {', '.join(Params.model_fields)}"
        )
    message = error["msg"].removeprefix("Value error, ")
    if not name:
        return message
    value, hint = error["input"], ""
    if error["type"] == "literal_error":
        hint = nearest(value, re.findall(r"'([^']+)'", error["ctx"]["expected"]))
    elif error["type"] == "float_type" and isinstance(value, str):
        hint = " (YAML reads 1e-3 as text: write 1.0e-3)"
    elif error["type"] == "string_type" and not isinstance(value, list | dict | None):
        hint = " (YAML does not read it as text: write it in quotes)"
    return f"{name}: {value!r} is not possible: {message}{hint}"


def read(*files: str | Path, **changes) -> Params:
    """Parameters from flat YAML files and changes; the later one wins."""
    return check(merge(files) | changes)


def merge(files: Iterable[str | Path]) -> dict:
    """The values of flat YAML files, unchecked; the later file wins."""
    values: dict = {}
    for file in files:
        values |= _mapping(Path(file))
    return values


def _mapping(file: Path) -> dict:
    try:
        loaded = load_yaml(file)
    except FileNotFoundError:
        have = sorted(p.stem for p in file.parent.glob("*.yaml") if p.stem != "tuned")
        raise ParamsError(f"{file}: there is no such file; {file.parent} has: {', '.join(have) or 'none'}") from None
    loaded = {} if loaded is None else loaded
    if not isinstance(loaded, dict):
        raise ParamsError(f"{file}: expected lines of 'name: value', found {type(loaded).__name__}")
    if odd := [key for key in loaded if not isinstance(key, str)]:
        raise ParamsError(f"{file}: {odd[0]!r} is no name of a parameter; expected lines of 'name: value'")
    return loaded


def load_yaml(file: Path) -> Any:
    """What a YAML file holds.

    Raises
    ------
    FileNotFoundError
    ParamsError
        It cannot be read for another reason, or is no YAML: one line, with the place.
    """
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ParamsError(f"{file}: not readable: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ParamsError(f"{file}: not readable as YAML: its characters are not UTF-8; save it as UTF-8") from None
    except (ValueError, yaml.YAMLError) as error:  # a ValueError: a date such as 2020-13-45
        raise ParamsError(f"{file}: not readable as YAML: {_line(error)}") from None


def _line(error: Exception) -> str:
    """What is wrong with a YAML text, in one line, with its place where it has one."""
    mark = getattr(error, "problem_mark", None)
    text = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"{text}, line {mark.line + 1}, column {mark.column + 1}" if mark else text


def change(text: str) -> tuple[str, Any]:
    """The name and the value of `NAME=VALUE`, the value read by its parameter's type.

    Where text is wanted it is the text as it stands, in quotes or not: a run's key of digits alone stays a key. The rest
    is YAML, and 1e-3 a number.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise ParamsError(f"-p {text!r}: write NAME=VALUE, such as -p epochs=5")
    kind = Params.model_fields[name].annotation if name in Params.model_fields else str
    if _is_text(kind) and get_origin(kind) is not list:
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        null = type(None) in get_args(kind) and value in ("", "null", "None")
        return name, None if null else value[1:-1] if quoted else value
    try:
        loaded = yaml.safe_load(value)
    except (ValueError, yaml.YAMLError) as error:
        raise ParamsError(f"-p {text!r}: the value is not readable as YAML: {_line(error)}") from None
    return name, loaded if _is_text(kind) else _number(loaded)


def _is_text(kind: Any) -> bool:
    """Whether a parameter of this type is text, or a list of texts."""
    return kind is str or isinstance(kind, str) or any(map(_is_text, get_args(kind)))


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(one) for one in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def page_name(text: str) -> str:
    """The name of a page, if it can name files.

    Raises
    ------
    ParamsError
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) or len(text) > LONGEST or text == "index":
        raise ParamsError(
            f"page {text!r}: its name is that of its file, and names others: allowed are up to {LONGEST} letters, digits, "
            "'.', '_' and '-', a letter or a digit first, and not 'index'; rename the file"
        )
    return text


def file_of(name: str) -> Path:
    """`params/<name>.yaml` of the checkout, or the path itself when it ends in `.yaml`."""
    return Path(name) if name.endswith((".yaml", ".yml")) else CHECKOUT / "params" / f"{name}.yaml"


def files_of(page: str, budget: str | None = None) -> list[Path]:
    """A page's parameter files, the later one over the earlier: its own and the budget's.

    A page that names its budget stands over that budget's file, and takes no other. One that names none lies under the file of
    `budget`, which is `quick` where nothing is asked for.

    Raises
    ------
    ParamsError
        The page names its budget, and one is asked for as well; or a file is not there or not readable.
    """
    own = file_of(page)
    named = merge([own]).get("budget")
    if named and budget:
        raise ParamsError(
            f"{page}: {own.name} names its own budget, {named!r}, and takes no other: leave {budget!r} out, or change that line"
        )
    return [file_of(f"budget-{named}"), own] if named else [own, file_of(f"budget-{budget or 'quick'}")]


def differing(files: Iterable[str | Path]) -> dict[str, tuple]:
    """The keys on which flat YAML files differ: the values that were overruled, in the files' order, and last the one used."""
    seen: dict[str, list] = {}
    for file in files:
        for name, value in merge([file]).items():
            seen.setdefault(name, []).append(value)
    return {name: tuple(values) for name, values in seen.items() if any(value != values[0] for value in values)}


def collect(names: dict) -> Params:
    """Parameters from a notebook's `globals()`: those that it knows, and all that its cells of parameters assign.

    So a misspelt one is refused here, and no other name that a notebook uses is taken for a parameter.
    """
    return check({k: v for k, v in names.items() if k in Params.model_fields or k in _given(names.get("In", []))})


def _given(cells: list[str]) -> set[str]:
    """The names that the last executed cell of parameters assigns, and the cell that papermill put behind it.

    Parameters
    ----------
    cells : the sources of all executed cells, in their order, as IPython keeps them in `In`. An older one, with a mistake
        that was mended since, does not count.
    """
    injected = None
    for source in reversed(cells):
        names = _assigned(source)
        if source.startswith("# Parameters\n"):
            injected = names if injected is None else injected
        elif {"title", "dataset"} <= names:
            return names | (injected or set())
    return injected or set()


def _assigned(source: str) -> set[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell that failed
        return set()
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
