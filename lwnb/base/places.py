"""Where things lie: the checkout, the home, published records."""

import errno
import os
import re
from pathlib import Path

from lwnb.base.errors import ParamsError

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where `notebooks/`, `params/`, `book/` and `_config.yml` lie."""


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
    """Where records lie, in the order in which they are looked up: `runs/` and `results/` of the home,
    and published ones.

    The last is `$LWNB_RESULTS`, else the checkout's `results/`. No run writes to any but the first.
    """
    return list(dict.fromkeys([home() / "runs", home() / "results", _place("LWNB_RESULTS", CHECKOUT / "results")]))


def settle() -> None:
    """Make `PLACES` whole paths in the environment, so that kernels and workers, which stand elsewhere,
    mean the same."""
    for name in PLACES:
        if text := os.environ.get(name):
            os.environ[name] = str(Path(text).expanduser().absolute())


UNWRITABLE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOSPC, errno.EDQUOT,
}  # fmt: skip
"""What a system says of a place that it does not let one write to: no fault of the program."""


def unwritable(error: OSError) -> str | None:
    """What could not be written, why, and what helps, in one line; None of an error that says something else."""
    if error.errno not in UNWRITABLE:
        return None
    place = re.sub(r"\.tmp\d+$", "", str(error.filename or home()))
    advice = "make room or a way there, or name another place: LWNB_HOME is the folder of runs, images and reports"
    return f"{place}: cannot be written ({error.strerror}): {advice}"


def _place(name: str, usual: Path) -> Path:
    path = Path(os.environ.get(name) or usual).expanduser()
    if not path.is_absolute():
        raise ParamsError(f"{name}: {str(path)!r} is relative, and it is not known to what: write the whole path")
    return path.resolve()
