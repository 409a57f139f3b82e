"""Notebooks executed by papermill: each study for each page, and reused while nothing they depend on has changed."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from lwnb import __version__
from lwnb.base import disk
from lwnb.base.errors import ParamsError
from lwnb.base.places import CHECKOUT
from lwnb.plan.paramfiles import page_name

Fingerprints = Callable[["Page | None"], str]

WORKERS = min(8, (os.cpu_count() or 1) + 1)
"""Notebooks executed side by side: one more than there are cores, since each also waits for its kernel."""


@dataclass(frozen=True)
class Page:
    """One data set with one budget: a page in every study's chapter.

    `name` goes into file names, `title` into headings; `values` are the flat, validated parameters.
    """

    name: str
    title: str
    values: dict


@dataclass(frozen=True)
class Executed:
    """What became of one notebook; `page` is None for the front page and the closing one."""

    notebook: Path
    page: Page | None
    path: Path
    error: str | None
    reused: bool
    seconds: float

    def line(self) -> str:
        """One line for a log, such as `01_architectures, cifar10: 9 s`."""
        label = f"{self.notebook.stem}, {self.page.name}" if self.page else self.notebook.stem
        if self.error:
            return f"{label}: FAILED {self.error}"
        return f"{label}: {'nothing has changed, used again' if self.reused else f'{self.seconds:.0f} s'}"


def is_study(notebook: Path) -> bool:
    """Whether a notebook is executed for each page; the front page `00_…` and the closing ones `9x_…` are not."""
    return not notebook.name.startswith(("00", "9"))


def execute(
    notebooks: Sequence[Path],
    pages: Sequence[Page],
    out: Path,
    fingerprints: Fingerprints,
    workers: int = WORKERS,
    progress: Callable[[str], None] = print,
) -> list[Executed]:
    """Run papermill for each study and page, then for the front and the closing notebooks;
    the others go on if one fails.

    A notebook is used again while its source, its parameters, this package and its fingerprint are as they were. The
    kernel is this interpreter, its working directory the checkout; there is no time limit.

    Parameters
    ----------
    notebooks : `00_…` is the front page and `9x_…` are closing ones: each is executed once, with the parameter `pages`,
        which maps their names to their values. The others are studies, executed with its values for each page that
        takes part in them (parameter `notebooks`).
    out : the executed notebooks go to `out/executed`.
    fingerprints : a hash of the run records that the studies read for a page; of None, what the others read, asked for
        when the studies are done. It is called once for each.
    workers : notebooks executed side by side, each in processes of its own.
    progress : called with one line for each notebook that is done.
    """
    _check(pages)
    prints = {page.name: fingerprints(page) for page in pages}
    studies = [
        (notebook, page, prints[page.name])
        for notebook in filter(is_study, notebooks)
        for page in pages
        if notebook.stem in page.values.get("notebooks", [notebook.stem])
    ]
    singles = [notebook for notebook in notebooks if not is_study(notebook)]
    every, same = {page.name: page.values for page in pages}, _same()

    def run(job):
        notebook, page, records = job
        values = page.values if page else {"pages": every}
        stamp = same | {"notebook": digest([notebook]), "values": values, "records": records}
        done = _execute(notebook, page, values, out / "executed", json.dumps(stamp, indent=1), environment)
        progress(done.line())
        return done

    with _kernel() as environment, ThreadPoolExecutor(workers) as pool:
        done = [*pool.map(run, studies)]
        left = fingerprints(None)  # the singles read what the studies left
        return [*done, *pool.map(run, [(notebook, None, left) for notebook in singles])]


def _check(pages: Sequence[Page]) -> None:
    names = [page_name(page.name) for page in pages]
    for name in names:
        if names.count(name) > 1:
            raise ParamsError(f"page {name!r}: the name is taken; give each page a name of its own")


@contextmanager
def _kernel():
    """An environment in which the kernel `python3` is this interpreter, whatever kernels the user has installed."""
    from ipykernel.kernelspec import write_kernel_spec

    with tempfile.TemporaryDirectory() as folder:
        write_kernel_spec(Path(folder, "kernels", "python3"))
        paths = filter(None, [folder, os.environ.get("JUPYTER_PATH")])
        yield os.environ | {"JUPYTER_PATH": os.pathsep.join(paths), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def _execute(notebook: Path, page: Page | None, values: dict, folder: Path, stamp: str, environment) -> Executed:
    """Execute a notebook, unless the one that is there has this stamp: all that it depends on, as JSON."""
    stem = f"{notebook.stem}/{page.name}" if page else notebook.stem
    target, stamp_file = folder / f"{stem}.ipynb", folder / f"{stem}.json"
    if target.exists() and stamp_file.exists() and stamp_file.read_text() == stamp:
        return Executed(notebook, page, target, None, True, 0.0)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    stamp_file.unlink(missing_ok=True)
    start = time.perf_counter()
    error = _papermill(notebook, target, values, environment)
    if error is None:
        disk.sync(target)
        disk.write(stamp_file, stamp.encode())  # last of all: what was interrupted has no stamp
    return Executed(notebook, page, target, error, False, time.perf_counter() - start)


def _same() -> dict:
    """What all executed notebooks depend on: the package, and the data of the book."""
    package = [__version__, digest(sorted(Path(__file__).parents[1].rglob("*.py")))]
    return {"package": package, "data": digest(sorted((CHECKOUT / "book").glob("*.yaml")))}


def digest(files: Sequence[Path]) -> str:
    """The SHA-256 of the names and contents of files, in the order given."""
    lines = (f"{file} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _papermill(notebook: Path, target: Path, values: dict, environment: dict) -> str | None:
    """Execute one notebook in a process of its own; what went wrong in one line, or None."""
    parameters = target.with_suffix(".yaml")
    parameters.write_text(yaml.safe_dump(values, sort_keys=False))  # pages are shown in the order asked for
    options = ["--parameters_file", parameters, "--kernel", "python3", "--language", "python", "--cwd", CHECKOUT]
    command = [sys.executable, "-m", "papermill", notebook, target, "--no-progress-bar", *options]
    done = subprocess.run(
        list(map(str, command)), check=False, env=environment, capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode == 0:
        return None
    if found := failed_cell(target):
        return _summary(*found)
    return (done.stderr.strip().splitlines() or [f"papermill ended with status {done.returncode}"])[-1]


def failed_cell(path: Path) -> tuple[str, dict] | None:
    """The source and the error output of the cell at which an executed notebook stopped, if it tells."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (FileNotFoundError, json.JSONDecodeError):  # it never began, or was killed while it wrote
        return None
    for cell in cells:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                return "".join(cell["source"]), output
    return None


def _summary(source: str, output: dict) -> str:
    message = " ".join(str(output["evalue"]).split())
    return f"in the cell {source.splitlines()[0]!r}: {output['ename']}: {message}"
