"""The doors for what is new: a table of facts has one row for each name, and a row says where the work is done."""

import pkgutil
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from lwnb.base.errors import ParamsError, nearest

Row = TypeVar("Row")


def resolve(work: str) -> Callable:
    """The function that a row names as "module:function"; its module is imported now, when it is wanted."""
    return pkgutil.resolve_name(work)


def known(name: str, table: Mapping[str, Row], what: str) -> Row:
    """The row of a name; `what` is the parameter or option that has the name as its value.

    Raises
    ------
    ParamsError
        The table has no such row: says which it has, and the nearest.
    """
    if name not in table:
        raise ParamsError(f"{what}: {name!r} is not possible: {allowed(name, table)}")
    return table[name]


def allowed(name: str, names: Iterable[str]) -> str:
    """What to say of a name that is not among `names`: those that are, and the nearest."""
    names = list(names)
    return f"allowed are {', '.join(names)}{nearest(name, names)}"
