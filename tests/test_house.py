"""Imports run one way; what only reads records never pays for torch; no dependency is missing and none is idle."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lwnb.base.places import CHECKOUT

ROOMS = ("report", "batch", "edge", "training", "evidence", "records", "data", "networks", "plan", "base")
"""From the top of the house to its ground: a room imports from itself and from those below it.
`cli` stands above them all."""

HEAVY = {"torch", "torchvision", "lightning", "pytorch_lightning", "torchmetrics", "ptflops"}

NAMELESS = {"base", "plan", "records", "evidence", "report", "cli"}
"""Rooms that name no heavy package anywhere."""

WITH_TORCH = {"networks", "training", "data.sets", "edge.export", "edge.convert", "edge.to_onnx", "edge.to_executorch"}
"""Rooms and files that cannot be imported without torch; all others can."""

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
            split = (
                origin.split(".")[0] == "lwnb" and origin.count(".") < 2
            )  # from lwnb.plan import params: a module each
            found.extend(Import(f"{origin}.{a.name}" if split else origin, lazy) for a in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(ast.parse(source), False)
    return found


def room(module: str) -> str:
    return module.split(".")[0]


def targets(module: str, source: str, known: set[str], lazy: bool = True) -> set[str]:
    """The modules of the package that one imports; `from lwnb.records import results` names records.results."""
    found = set()
    for name, inside in imports(source):
        if lazy or not inside:
            parts = name.split(".")[1:] if name.startswith("lwnb.") else []
            found |= {target for target in (".".join(parts[:2]), parts[0] if parts else "") if target in known}
    return found - {module}


def house_faults(sources: dict[str, str]) -> list[str]:
    """What breaks the rule, one line each, for modules given as room.module -> source text."""
    faults = [f"{m}: is in no room" for m in sources if room(m) not in ("cli", *ROOMS)]
    floors = {name: floor for floor, name in enumerate(("cli", *ROOMS))}
    graph = {module: targets(module, source, set(sources)) for module, source in sources.items()}
    for module, source in sources.items():
        for target in sorted(graph[module]):
            if floors.get(room(target), 99) < floors.get(room(module), 99):
                faults.append(f"{module}: imports {target}, which is above it")
        for name, _ in imports(source):
            root = name.split(".")[0]
            if room(module) in NAMELESS and root in HEAVY:
                faults.append(f"{module}: imports {name}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        faults.append("a circle: " + " -> ".join(error.args[1]))
    return faults


def loaded(module: str, sources: dict[str, str]) -> set[str]:
    """Root names of all that is imported when `module` is, by way of other modules of lwnb too."""
    seen, todo, names = set(), [module], set()
    while todo:
        seen.add(current := todo.pop())
        names |= {name.split(".")[0] for name, lazy in imports(sources[current]) if not lazy}
        todo += targets(current, sources[current], set(sources), lazy=False) - seen
    return names


def package() -> dict[str, str]:
    """The modules as room.module -> source text; a room's own `__init__` holds nothing but its docstring."""
    files = {file.relative_to(CHECKOUT / "lwnb"): file for file in (CHECKOUT / "lwnb").rglob("*.py")}
    return {
        ".".join(path.with_suffix("").parts): file.read_text(encoding="utf-8")
        for path, file in files.items()
        if path.name != "__init__.py"
    }


def test_imports_run_one_way_and_in_no_circle():
    assert house_faults(package()) == []


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_says_what_belongs_there_and_does_not_swell(name):
    place = CHECKOUT / "lwnb" / name
    tree = ast.parse((place / "__init__.py").read_text(encoding="utf-8"))
    assert len(tree.body) == 1 and "Not here" in ast.get_docstring(tree)
    assert 2 <= len([file for file in place.glob("*.py") if file.name != "__init__.py"]) <= 8
    assert all(path.suffix in ("", ".py") for path in place.iterdir())


def test_every_room_is_packed():
    """Or the wheel would lack it."""
    table = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert set(table["packages"]) == {"lwnb", *(f"lwnb.{name}" for name in ROOMS)}


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("data.sets", "import lwnb.training.train", "data.sets: imports training.train, which is above it"),
        ("data.sets", "from lwnb.training.train import fit", "data.sets: imports training.train, which is above it"),
        ("data.sets", "from lwnb.training import train", "data.sets: imports training.train, which is above it"),
        (
            "data.sets",
            "def f():\n    from lwnb.training import train",
            "data.sets: imports training.train, which is above it",
        ),
        ("evidence.stats", "def f():\n    import torch.nn", "evidence.stats: imports torch.nn"),
        ("plan.run", "from torchvision import models", "plan.run: imports torchvision"),
        ("report.book", "class A:\n    import torch", "report.book: imports torch"),
        ("shelf", "", "shelf: is in no room"),
    ],
)
def test_a_planted_import_is_named(module, source, fault):
    assert house_faults({"training.train": "", module: source}) == [fault]


def test_a_planted_circle_is_found():
    (fault,) = house_faults({"data.a": "from lwnb.data import b", "data.b": "def f():\n    from lwnb.data.a import x"})
    assert "circle" in fault and "data.a" in fault and "data.b" in fault


@pytest.mark.parametrize("module", sorted(m for m in package() if not {m, room(m)} & WITH_TORCH))
def test_light_modules_reach_torch_by_no_chain_of_imports(module):
    assert not loaded(module, package()) & HEAVY


def test_a_planted_chain_of_imports_is_found():
    chain = {"cli": "import lwnb.batch.a", "batch.a": "from lwnb.training.b import fit", "training.b": "import torch"}
    assert "torch" in loaded("cli", chain)
    assert "torch" not in loaded("cli", chain | {"batch.a": "def f():\n    from lwnb.training.b import fit"})


def test_help_is_quick_and_without_torch():
    """Within 0.5 s on an idle machine; here twice that, in processor time,
    which a busy machine does not stretch much."""
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
    """Distributions that hold what the texts import; an import that no installed one holds stands under its own
    name."""
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
