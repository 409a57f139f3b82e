"""Where parameters come from: flat YAML files, and the cells of a notebook."""

import ast
import copy
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from lwnb.base.errors import ParamsError
from lwnb.base.places import CHECKOUT
from lwnb.plan import params
from lwnb.plan.params import LONGEST, Params


def read(*files: str | Path, **changes) -> Params:
    """Parameters from flat YAML files and changes; the later one wins."""
    return params.check(merge(files) | changes)


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


@lru_cache
def _parsed(text: str) -> Any:
    return yaml.safe_load(text)


def load_yaml(file: Path) -> Any:
    """What a YAML file holds; a text that was parsed before is not parsed again, as one is asked for by every run.

    Raises
    ------
    FileNotFoundError
    ParamsError
        It cannot be read for another reason, or is no YAML: one line, with the place.
    """
    try:
        return copy.deepcopy(_parsed(file.read_text(encoding="utf-8")))
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

    Where text is wanted it is the text as it stands, in quotes or not: a run's key of digits alone stays a key. The
    rest is YAML, and 1e-3 a number.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
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
            f"page {text!r}: its name is that of its file, and names others: allowed are up to {LONGEST} letters, "
            "digits, '.', '_' and '-', a letter or a digit first, and not 'index'; rename the file"
        )
    return text


def file_of(name: str) -> Path:
    """`params/<name>.yaml` of the checkout, or the path itself when it ends in `.yaml`."""
    return Path(name) if name.endswith((".yaml", ".yml")) else CHECKOUT / "params" / f"{name}.yaml"


def files_of(page: str, budget: str | None = None) -> list[Path]:
    """A page's parameter files, the later one over the earlier: its own and the budget's.

    A page that names its budget stands over that budget's file, and takes no other. One that names none lies under the
    file of `budget`, which is `quick` where nothing is asked for.

    Raises
    ------
    ParamsError
        The page names its budget, and one is asked for as well; or a file is not there or not readable.
    """
    own = file_of(page)
    named = merge([own]).get("budget")
    if named is not None and not (isinstance(named, str) and re.fullmatch(r"[\w-]+", named)):
        have = ", ".join(
            sorted(file.stem.removeprefix("budget-") for file in file_of("budget-").parent.glob("budget-*"))
        )
        raise ParamsError(f"{own}: budget: {named!r} is not possible: allowed are {have}")
    if named and budget:
        raise ParamsError(
            f"{page}: {own.name} names its own budget, {named!r}, and takes no other: "
            f"leave {budget!r} out, or change that line"
        )
    return [file_of(f"budget-{named}"), own] if named else [own, file_of(f"budget-{budget or 'quick'}")]


def pages(
    texts: Iterable[str], budget: str | None = None, changes: Iterable[str] = ()
) -> tuple[dict[str, dict], list[str]]:
    """The flat values of the pages that a command is asked for, by name; and where their files differ, a line a page.

    Parameters
    ----------
    texts : pages as `files_of` takes them; `cifar10:cpu` is one with a budget of its own
    budget : the budget of all others that name none
    changes : `NAME=VALUE`, over the files of every page

    Raises
    ------
    ParamsError
        A file or a value that cannot be read, or two pages of one name.
    """
    given, found, lines = dict(map(change, changes)), [], []
    if "budget" in given:
        raise ParamsError(f"-p budget={given['budget']}: a budget is a file of parameters: --budget {given['budget']}")
    for text in texts:
        name, _, own = text.partition(":") if not Path(text).suffix else (text, "", "")
        files = files_of(name, own or budget)
        lines += _overruled(name, files, given)
        values = merge(files) | given
        found.append((text, page_name(Path(name).stem), own, values | {"title": params.check(values).title}))
    return _distinct(found), lines


def _overruled(name: str, files: list[Path], given: Iterable[str]) -> list[str]:
    """The keys on which a page's files differ and that no change decides, in one line, or none."""
    differ = {key: values for key, values in differing(files).items() if key not in given}
    said = "; ".join(f"{key} {values[-1]!r}, not {values[0]!r}" for key, values in differ.items())
    return [f"{name}: {files[-1].name} overrules {files[0].name}: {said}"] if said else []


def _distinct(found: list[tuple[str, str, str, dict]]) -> dict[str, dict]:
    """Values by page name, of pages as (text asked for, name, budget of its own, values): no two have one name.

    Where names are the same, those with a budget of their own carry it in name and title.
    """
    names, texts, pages = [name for _, name, _, _ in found], {}, {}
    for text, name, own, values in found:
        if own and names.count(name) > 1:
            name, values = page_name(f"{name}-{own}"), values | {"title": f"{values['title']}, budget {own}"}
        if name in pages:
            raise ParamsError(f"{texts[name]} and {text} are both page {name!r}: leave one out, or rename its file")
        texts[name], pages[name] = text, values
    return pages


def differing(files: Iterable[str | Path]) -> dict[str, tuple]:
    """The keys on which flat YAML files differ: the values that were overruled, in the files' order,
    and last the one used."""
    seen: dict[str, list] = {}
    for file in files:
        for name, value in merge([file]).items():
            seen.setdefault(name, []).append(value)
    return {name: tuple(values) for name, values in seen.items() if any(value != values[0] for value in values)}


def collect(names: dict) -> Params:
    """Parameters from a notebook's `globals()`: those that it knows, and all that its cells of parameters assign.

    So a misspelt one is refused here, and no other name that a notebook uses is taken for a parameter.
    """
    return params.check(
        {k: v for k, v in names.items() if k in Params.model_fields or k in _given(names.get("In", []))}
    )


def _given(cells: list[str]) -> set[str]:
    """The names that the last executed cell of parameters assigns, and the cell that papermill put behind it.

    Parameters
    ----------
    cells : the sources of all executed cells, in their order, as IPython keeps them in `In`. An older one, with a
        mistake that was mended since, does not count.
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
