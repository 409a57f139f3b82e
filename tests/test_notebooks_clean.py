"""Committed notebooks are sources: no output, no machine's traces, parameters as literals, little code."""

import ast
import copy
import json
import re
import symtable

import pytest

from lwnb.base.places import CHECKOUT
from lwnb.plan.params import Params

CELLS, LINES = 12, 80
"""Most code cells, and most lines of code that are not blank."""

KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}
GATHERING = {"00_summary", "90_what_holds", "99_reproducibility"}
"""The pages that gather the others: their only parameter is `pages`."""

NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def code(notebook: dict) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def trace_faults(notebook: dict) -> list[str]:
    """What an execution or a machine has left behind."""
    faults = []
    for n, cell in enumerate(notebook["cells"]):
        faults += [f"cell {n}: has outputs"] * bool(cell.get("outputs"))
        faults += [f"cell {n}: has an execution count"] * (cell.get("execution_count") is not None)
        faults += [f"cell {n}: metadata {key!r}" for key in cell["metadata"] if key != "tags"]
    metadata = notebook["metadata"]
    faults += [f"metadata {key!r}" for key in metadata if key not in {"kernelspec", "language_info"}]
    spec = metadata.get("kernelspec", {})
    faults += ["kernelspec is not python3 alone"] * (
        spec.get("name") != "python3" or not spec.items() <= KERNELSPEC.items()
    )
    return faults + ["language_info says more than python"] * (metadata.get("language_info") != {"name": "python"})


def parameters(notebook: dict) -> tuple[dict, list[str]]:
    """Name to value of the cell tagged `parameters`, and its faults."""
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        return {}, [f"{len(tagged)} cells are tagged 'parameters'"]
    source = "".join(tagged[0]["source"])
    values, faults = {}, []
    for node in ast.parse(source).body:
        text = ast.get_source_segment(source, node)
        try:
            (target,) = node.targets
            values[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            faults.append(f"parameters: {text!r} is no name with a literal value")
        rest = source.splitlines()[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        faults += [f"parameters: {text!r} has no comment"] * (not re.match(r"\s*#\s*\w", rest))
    return values, faults


def default_faults(values: dict, gathering: bool) -> list[str]:
    """Parameters that Params does not know, or whose default is another one (1 is not 1.0 here)."""
    if gathering:
        return [f"parameters: {sorted(values)}, allowed is 'pages'"] * (set(values) != {"pages"})
    known = {name: field.get_default(call_default_factory=True) for name, field in Params.model_fields.items()}
    faults = [f"{name}: Params does not know it" for name in values if name not in known]
    return faults + [
        f"{name}: {value!r}, the default of Params is {known[name]!r}"
        for name, value in values.items()
        if name in known and repr(known[name]) != repr(value)
    ]


def style_faults(notebook: dict) -> list[str]:
    """Too much code, definitions, shell lines, absolute paths."""
    cells = code(notebook)
    count = sum(bool(line.strip()) for text in cells for line in text.splitlines())
    faults = [f"{len(cells)} code cells, at most {CELLS}"] * (len(cells) > CELLS)
    faults += [f"{count} lines of code, at most {LINES}"] * (count > LINES)
    for text in cells:
        shell = [line for line in text.splitlines() if re.match(r"\s*[!%]", line)]
        faults += [f"shell line {line!r}" for line in shell]
        nodes = [] if shell else list(ast.walk(ast.parse(text)))
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        faults += [f"defines {node.name}" for node in nodes if isinstance(node, kinds)]
        strings = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        faults += [f"absolute path {s!r}" for s in strings if re.match(r"/\w|~|[A-Za-z]:[\\/]", s)]
    return faults


def all_faults(notebook: dict, stem: str) -> list[str]:
    values, faults = parameters(notebook)
    return trace_faults(notebook) + faults + default_faults(values, stem in GATHERING) + style_faults(notebook)


def read(path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_study_has_its_notebook():
    studies = {"01_architectures", "02_transfer", "03_augmentation", "04_hyperparameters", "05_deployment"}
    assert studies | GATHERING <= {path.stem for path in NOTEBOOKS}


def test_the_notebook_for_exploring_is_clean():
    notebook = read(CHECKOUT / "notebooks" / "explore.ipynb")
    assert trace_faults(notebook) + parameters(notebook)[1] + style_faults(notebook) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_clean(path):
    assert all_faults(read(path), path.stem) == []


def test_every_parameter_belongs_to_a_study():
    names = {name for path in NOTEBOOKS if path.stem not in GATHERING for name in parameters(read(path))[0]}
    assert names == set(Params.model_fields)


def bound(text: str) -> set[str]:
    """The names that a cell binds where a notebook's parameters stand: by =, for, with, :=, import and the like."""
    names = {name.get_name(): name for name in symtable.symtable(text, "cell", "exec").get_symbols()}
    return {name for name, symbol in names.items() if symbol.is_assigned() or symbol.is_imported()}


@pytest.mark.parametrize("path", [*NOTEBOOKS, CHECKOUT / "notebooks" / "explore.ipynb"], ids=lambda path: path.stem)
def test_no_cell_but_that_of_parameters_binds_a_parameter_s_name(path):
    cells = [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    others = ["".join(c["source"]) for c in cells if "parameters" not in c["metadata"].get("tags", [])]
    assert not set().union(*map(bound, others)) & ({*Params.model_fields, "pages"} | set(parameters(read(path))[0]))


def test_every_way_to_bind_a_name_is_seen():
    text = (
        "a = 1\nfor b in x:\n  pass\nimport c\nfrom y import z as d\nif (e := 1):\n  f, (*g,) = x\nwith x as h:\n  pass"
    )
    assert bound(text + "\n[i for i in x]\nx[0] = k = 1") == set("abcdefghk")


EPOCHS = Params().epochs
CLEAN = {
    "cells": [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Which one?"]},
        {
            "cell_type": "code",
            "execution_count": None,
            "metadata": {"tags": ["parameters"]},
            "outputs": [],
            "source": [f"epochs = {EPOCHS}  # epochs\n", "seeds = 1  # number of seeds"],
        },
    ],
    "metadata": {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}},
}


def test_a_clean_notebook_has_no_fault():
    assert all_faults(CLEAN, "01_architectures") == []


def planted(**changes) -> dict:
    """The clean notebook with its parameters cell changed; `top` changes the notebook's metadata."""
    notebook = copy.deepcopy(CLEAN)
    notebook["metadata"] |= changes.pop("top", {})
    notebook["cells"][1] |= changes
    return notebook


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"outputs": [{"output_type": "stream"}]}, "has outputs"),
        ({"execution_count": 3}, "execution count"),
        ({"metadata": {"tags": ["parameters"], "papermill": {"duration": 1}}}, "metadata 'papermill'"),
        ({"top": {"papermill": {}}}, "metadata 'papermill'"),
        ({"top": {"kernelspec": {"name": "my-env", "display_name": "Python 3"}}}, "kernelspec"),
        ({"top": {"language_info": {"name": "python", "version": "3.11.7"}}}, "language_info"),
        ({"metadata": {}}, "0 cells are tagged"),
        ({"source": ["epochs = 12"]}, "has no comment"),
        ({"source": ["epochs = 6 * 2  # epochs"]}, "no name with a literal value"),
        ({"source": ["import os  # system"]}, "no name with a literal value"),
        ({"source": ["epoch = 12  # epochs"]}, "epoch: Params does not know it"),
        ({"source": [f"epochs = {EPOCHS + 1}  # epochs"]}, f"the default of Params is {EPOCHS}"),
        ({"source": [f"epochs = {EPOCHS}.0  # epochs"]}, f"the default of Params is {EPOCHS}"),
        ({"source": ["def f(): ...  # no"]}, "defines f"),
        ({"source": ["data_root = '/mnt/images'  # folder"]}, "absolute path"),
        ({"source": ["epochs = 12  # epochs\n"] * 81}, "81 lines of code"),
    ],
)
def test_a_planted_fault_is_named(change, fault):
    assert any(fault in line for line in all_faults(planted(**change), "01_architectures"))


@pytest.mark.parametrize("line", ["!ls", "  %time 1", "%%bash"])
def test_a_shell_line_is_named(line):
    cell = {"cell_type": "code", "metadata": {}, "source": [line], "outputs": [], "execution_count": None}
    assert style_faults({"cells": [cell]}) == [f"shell line {line!r}"]


def test_too_many_cells_are_named():
    assert style_faults({"cells": CLEAN["cells"] * 13}) == ["13 code cells, at most 12"]
