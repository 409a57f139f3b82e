"""pyproject.toml, environment.yml and requirements.lock say the same.

environment.yml is parsed and compared, not solved: no test here asks conda whether its channel has these versions.
"""

import tomllib

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from rattler import MatchSpec

from lwnb.base.places import CHECKOUT

CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "playwright": "playwright-python"}
"""The packages that conda-forge knows by another name than the Python index."""

PLATFORMS = [("linux", "Linux", "x86_64"), ("linux", "Linux", "aarch64"), ("darwin", "Darwin", "arm64")] + [
    ("win32", "Windows", "AMD64")
]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def project() -> dict:
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements() -> list[Requirement]:
    """Everything that pyproject.toml asks for: the package's own needs, and those of all its extras."""
    table = project()["project"]
    extras = table["optional-dependencies"]
    return [Requirement(text) for text in table["dependencies"] + [text for extra in extras.values() for text in extra]]


def ranges(specifier: str) -> frozenset[str]:
    return frozenset(part.strip() for part in specifier.split(",") if part.strip())


def environment_faults(text: str, wanted: list[Requirement], python: str) -> list[str]:
    """What separates an environment.yml from the requirements: one line for each name."""
    lines = yaml.safe_load(text)["dependencies"]
    pip_lines = next(line["pip"] for line in lines if isinstance(line, dict))
    have = [(s.name.normalized, str(s.version or "")) for s in map(MatchSpec, (x for x in lines if isinstance(x, str)))]
    have += [(r.name, str(r.specifier)) for r in (Requirement(x) for x in pip_lines if x != "-e .")]
    want = {CONDA_NAMES.get(r.name, r.name): str(r.specifier) for r in wanted} | {"python": python, "pip": ""}
    faults = [f"{name}: stands there {n} times" for name in want if (n := [h[0] for h in have].count(name)) != 1]
    faults += [f"{name}: pyproject.toml does not ask for it" for name, _ in have if name not in want]
    faults += [
        f"{name}: {version or 'any'}, pyproject.toml has {want[name]}"
        for name, version in have
        if name in want and ranges(version) != ranges(want[name])
    ]
    return faults + ([] if "-e ." in pip_lines else ["lwnb itself is not installed"])


def locked(text: str, environment: dict | None = None) -> dict[str, Version]:
    """Name to exact version of a lock's lines that count in an environment; anything but `name==version` is refused."""
    versions: dict[str, Version] = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        if requirement.url or pin.operator != "==" or "*" in pin.version:
            raise ValueError(f"{line}: is no exact version")
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            if name in versions:
                raise ValueError(f"{line}: {name} is there already in version {versions[name]}")
            versions[name] = Version(pin.version)
    return versions


def unsatisfied(lock: dict[str, Version], wanted: list[Requirement]) -> list[str]:
    return [str(r) for r in wanted if (v := lock.get(canonicalize_name(r.name))) is None or not r.specifier.contains(v)]


def read(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def test_conda_environment_asks_for_what_the_project_asks_for():
    python = project()["project"]["requires-python"]
    assert environment_faults(read("environment.yml"), requirements(), python) == []


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("- pandas>=2.2\n", "", "pandas"),
        ("- pandas>=2.2\n", "- pandas>=2.2\n  - pandas>=2.2\n", "pandas"),
        ("- pytorch>=2.9", "- pytorch>=2.8", "pytorch"),
        ("lightning>=2.5,<3", "lightning>=2.5", "lightning"),
        ("python>=3.11", "python>=3.10", "python"),
        ("- pip\n", "- pip\n  - flask\n", "flask"),
        ("ptflops>=0.7.4", "ptflops>=0.7", "ptflops"),
        ("- -e .", "- six", "six"),
    ],
)
def test_a_planted_difference_is_named(old, new, named):
    text = read("environment.yml")
    assert text.count(old) == 1
    faults = environment_faults(text.replace(old, new), requirements(), ">=3.11")
    assert faults and any(fault.startswith(f"{named}:") for fault in faults)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("system", "platform", "machine"), PLATFORMS)
def test_lock_satisfies_the_project_everywhere(python, system, platform, machine):
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": system,
        "platform_system": platform,
        "platform_machine": machine,
        "os_name": "nt" if system == "win32" else "posix",
    }
    build = [Requirement(text) for text in project()["build-system"]["requires"]]  # make builds with the locked one
    assert unsatisfied(locked(read("requirements.lock"), environment), requirements() + build) == []


def test_lock_pairs_torch_with_its_torchvision():
    """A torchvision is built for one torch: 0.29 for 2.14 (the table in torchvision's README)."""
    lock = locked(read("requirements.lock"))
    assert lock["torchvision"].minor == lock["torch"].minor + 15


def test_lock_names_no_index():
    text = read("requirements.lock")
    assert not [line for line in text.splitlines() if line.startswith("-") or "://" in line or " @ " in line]


@pytest.mark.parametrize(
    "line", ["six>=1", "six @ https://example.org/six.whl", "six==1.*", "--index-url x", "six==2\nsix==1"]
)
def test_a_lock_that_is_not_exact_is_refused(line):
    with pytest.raises(ValueError):
        locked(line)


def test_a_lock_too_old_or_too_short_is_named():
    wanted = [Requirement("torch>=2.9"), Requirement("six>=1"), Requirement("pandas>=2.2")]
    lock = locked("torch==2.8.0\npandas==3.1.1\nsix==1.17.0 ; sys_platform == 'os2'\n")
    assert unsatisfied(lock, wanted) == ["torch>=2.9", "six>=1"]


def test_python_of_the_project_is_the_one_that_make_asks_for():
    assert SpecifierSet(project()["project"]["requires-python"]) == SpecifierSet(">=3.11")
    assert "sys.version_info >= (3, 11)" in read("Makefile")
