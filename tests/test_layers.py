"""Imports run one way; what only reads records never pays for torch; no dependency is missing and none is idle."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lwnb.params import CHECKOUT

LEVELS = (  # from the ground up: a module imports from lower lines only
    {"params", "clock", "disk"},
    {"results"},
    {"tuning", "stats", "trace", "costs", "columns", "census"},
    {"studies"},
    {"figures"},
    {"compare"},
    {"findings", "evidence", "conversions"},
    {"rules", "published"},
    {"claims"},
    # so far nothing needs torch
    {"images", "links", "splits"},
    {"files"},
    {"archives", "layout"},
    {"readers", "models", "policies"},
    {"data", "augment"},
    {"measure", "settings", "smallmaps", "runtimes", "evaluation"},
    {"train", "workers", "progress"},
    {"deploy"},
    {"devices"},
    {"exports"},
    {"choice", "grid", "pages"},
    {"book", "explore", "answer"},
    {"cli"},
)
LIGHT = set().union(*LEVELS[:9], {"devices", "exports", "choice", "explore", "pages", "book", "answer", "cli"})
"""Modules that are imported without torch, and name it nowhere."""

HEAVY = {"torch", "torchvision", "lightning", "pytorch_lightning", "torchmetrics", "ptflops"}
EXCEPTION = ("params", "torchvision")
"""Checks the name of a rarer network against torchvision's list, inside a function."""

APPLICATIONS = {
    "jupyterlab": "`make lab` starts it",
    "papermill": "executes the notebooks, as a command",
    "jupyter-book": "builds the report, as a command",
    "sphinx-mathjax-offline": "an extension that _config.yml names",
}
"""Dependencies that nothing imports, and what they are for."""


OPTIONAL = ("edge", "openvino")
"""The extras that the package uses where they are installed."""


class Import(NamedTuple):
    name: str  # torch, torch.nn, lwnb.params
    lazy: bool  # inside a function


def imports(source: str) -> list[Import]:
    """Every import of a source text, those inside functions too; relative ones made absolute."""
    found = []

    def visit(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = ".".join(filter(None, ["lwnb" if node.level else "", node.module]))
            split = origin == "lwnb"  # from lwnb import params: a module each
            found.extend(Import(f"lwnb.{a.name}" if split else origin, lazy) for a in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(ast.parse(source), False)
    return found


def level(module: str) -> int | None:
    return next((n for n, names in enumerate(LEVELS) if module in names), None)


def layer_faults(sources: dict[str, str]) -> list[str]:
    """What breaks the rule, one line each, for modules given as name -> source text."""
    faults = [f"{m}: has no place in LEVELS" for m in sources if level(m) is None]
    for module, source in sources.items():
        for name, lazy in imports(source):
            root, target = (*name.split("."), "")[:2]
            if root == "lwnb" and level(target) is not None and level(module) is not None:
                faults += [f"{module}: imports {target}, which is not below it"] * (level(target) >= level(module))
            if module in LIGHT and root in HEAVY and not ((module, root) == EXCEPTION and lazy):
                faults.append(f"{module}: imports {name}")
    return faults


def loaded(module: str, sources: dict[str, str]) -> set[str]:
    """Root names of all that is imported when `module` is, by way of other modules of lwnb too."""
    seen, todo, names = set(), [module], set()
    while todo:
        seen.add(current := todo.pop())
        for name in (i.name for i in imports(sources[current]) if not i.lazy):
            root, target = (*name.split("."), "")[:2]
            names.add(root)
            todo += [target] if root == "lwnb" and target in sources and target not in seen else []
    return names


def package() -> dict[str, str]:
    return {p.stem: p.read_text(encoding="utf-8") for p in (CHECKOUT / "lwnb").glob("*.py") if p.stem != "__init__"}


def test_imports_run_one_way():
    sources = package()
    assert {"params", "results", "studies", "data", "models", "train", "grid", "book", "cli"} <= set(sources)
    assert layer_faults(sources) == []


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("data", "import lwnb.train", "data: imports train, which is not below it"),
        ("data", "from lwnb.train import fit", "data: imports train, which is not below it"),
        ("data", "from . import train", "data: imports train, which is not below it"),
        ("data", "def f():\n    from .train import fit", "data: imports train, which is not below it"),
        ("stats", "from lwnb import results, models", "stats: imports models, which is not below it"),
        ("claims", "def f():\n    from lwnb import models", "claims: imports models, which is not below it"),
        ("figures", "def f():\n    import torch.nn", "figures: imports torch.nn"),
        ("params", "from torchvision import models", "params: imports torchvision"),
        ("book", "class A:\n    import torch", "book: imports torch"),
        ("shelf", "", "shelf: has no place in LEVELS"),
    ],
)
def test_a_planted_import_is_named(module, source, fault):
    assert layer_faults({module: source}) == [fault]


def test_a_rarer_network_may_be_looked_up_inside_a_function():
    assert layer_faults({"params": "def f():\n    from torchvision import models"}) == []


@pytest.mark.parametrize("module", sorted(LIGHT))
def test_light_modules_reach_torch_by_no_chain_of_imports(module):
    assert not loaded(module, package()) & HEAVY


def test_a_planted_chain_of_imports_is_found():
    chain = {"cli": "import lwnb.grid", "grid": "from lwnb.train import fit", "train": "import torch"}
    assert "torch" in loaded("cli", chain)
    assert "torch" not in loaded("cli", chain | {"grid": "def f():\n    from lwnb.train import fit"})


def test_help_is_quick_and_without_torch():
    """Within 0.5 s on an idle machine; here twice that, in processor time, which a busy machine does not stretch much."""
    code = "import sys; from lwnb.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())
    assert min(seconds) < 1.0


def declared(*extras: str) -> set[str]:
    table = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = table["dependencies"] + [line for extra in extras for line in table["optional-dependencies"][extra]]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def distributions(texts: list[str]) -> set[str]:
    """Distributions that hold what the texts import; an import that no installed one holds stands under its own name."""
    roots = {i.name.split(".")[0] for text in texts for i in imports(text)}
    owners = packages_distributions()
    foreign = roots - sys.stdlib_module_names - {"lwnb"}
    return {canonicalize_name(owner) for root in foreign for owner in owners.get(root, [root])}


def benchmark_code() -> list[str]:
    return [p.read_text(encoding="utf-8") for p in (CHECKOUT / "benchmarks").glob("*.py")]


def notebook_code() -> list[str]:
    books = [json.loads(p.read_text(encoding="utf-8")) for p in (CHECKOUT / "notebooks").glob("*.ipynb")]
    return ["".join(cell["source"]) for book in books for cell in book["cells"] if cell["cell_type"] == "code"]


def test_what_is_imported_is_declared():
    tests = {p.stem: p.read_text(encoding="utf-8") for p in (CHECKOUT / "tests").rglob("*.py")}
    assert distributions([*package().values(), *notebook_code()]) - declared(*OPTIONAL) == set()
    own = {"benchmarks", *map(canonicalize_name, tests)}
    assert distributions(list(tests.values())) - declared("dev", *OPTIONAL) - own == set()
    assert distributions(benchmark_code()) - declared("bench") - own == set()


def test_what_is_optional_is_imported_only_where_it_is_used():
    """Without the extras everything else works: their packages are named inside functions alone."""
    optional = declared(*OPTIONAL) - declared()
    eager = {i.name.split(".")[0] for source in package().values() for i in imports(source) if not i.lazy}
    lazy = {canonicalize_name(i.name.split(".")[0]) for source in package().values() for i in imports(source) if i.lazy}
    assert not optional & set(map(canonicalize_name, eager))
    assert optional - lazy == {"onnxscript"}, "torch.onnx imports it; all others are used here"


def test_the_package_knows_nothing_of_the_benchmarks():
    names = {i.name.split(".")[0] for source in package().values() for i in imports(source)}
    assert "benchmarks" not in names
    assert "lwnb" in {i.name.split(".")[0] for source in benchmark_code() for i in imports(source)}


def test_what_is_declared_is_used():
    used = distributions([*package().values(), *notebook_code()])
    assert declared() - used - set(APPLICATIONS) == set()
    assert set(APPLICATIONS) <= declared()
    assert set(APPLICATIONS) & used == set(), "imported after all: take it out of APPLICATIONS"


def test_an_undeclared_import_is_found():
    assert distributions(["import yaml, os, lwnb", "def f():\n    from nowhere.at import all_"]) == {
        "pyyaml",
        "nowhere",
    }
