"""Learning rates that `lwnb tune` chose, as `params/tuned.yaml` keeps them."""

from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from lwnb.base.errors import ParamsError
from lwnb.base.places import CHECKOUT
from lwnb.plan.paramfiles import load_yaml
from lwnb.plan.run import KEY, Rate, Run

FILE = CHECKOUT / "params" / "tuned.yaml"


def chosen(ladder: list[Run]) -> float | None:
    """The learning rate that runs of this ladder have chosen; None where none were tried yet."""
    return entry["lr"] if (entry := _entry(ladder)) else None


def tried(ladder: list[Run]) -> list[float]:
    """The rates among which `chosen` was chosen, from the lowest to the highest."""
    return sorted(entry["tried"]) if (entry := _entry(ladder)) else []


def _entry(ladder: list[Run]) -> dict | None:
    return next((entry for entry in entries() if is_of(entry, ladder)), None)


def is_of(entry: dict, ladder: list[Run]) -> bool:
    """Whether an entry was chosen among runs of this ladder."""
    of = {(run.dataset, run.model, run.key) for run in ladder}
    return {(entry["dataset"], entry["model"], key) for key in entry["tried"].values()} <= of


def entries() -> list[dict]:
    """The file's entries as plain dictionaries; none without a file.

    Raises
    ------
    ParamsError
        Somebody has written something else into it.
    """
    try:
        found = load_yaml(FILE) if FILE.exists() else None
        return [entry.model_dump() for entry in _ENTRIES.validate_python([] if found is None else found)]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        advice = "mend it, or remove the file: `lwnb tune` writes it again"
        raise ParamsError(
            f"{FILE}: {where}: {str(first['input'])[:60]!r} is not possible: {first['msg']}; {advice}"
        ) from None


class _Entry(BaseModel, extra="forbid"):
    dataset: str
    model: str
    lr: Rate
    tried: dict[Rate, Annotated[str, Field(pattern=f"^{KEY}$")]]

    @model_validator(mode="after")
    def _consistent(self):
        if self.lr not in self.tried:
            raise ValueError(f"lr {self.lr:g} is none of the rates tried")
        return self


_ENTRIES = TypeAdapter(list[_Entry])
