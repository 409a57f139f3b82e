"""What the README lets one type: its commands, and the lines that use an exported file."""

import re
import subprocess
import sys
import textwrap

from lwnb.base.places import CHECKOUT

TEXT = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The lines of its code blocks that begin with `make` or with a program of `.venv`, without their comments."""
    lines = re.findall(r"^    ((?:make|\.venv/bin/\w+) .*)$", TEXT, flags=re.MULTILINE)
    return [re.split(r"\s+# ", line)[0].strip() for line in lines]


def mentioned() -> list[str]:
    """Commands amid its sentences and comments: `lwnb fetch flowers`, lwnb measure --import board.json."""
    return re.findall(r"`((?:lwnb|make) [^`]+)`", TEXT) + re.findall(r"then here: (lwnb .*)$", TEXT, flags=re.MULTILINE)


def example() -> str:
    """The lines that guess the class of an image file by an ONNX file."""
    lines = TEXT.splitlines()
    first = lines.index("    import json, sys")
    last = next(n for n in range(first, len(lines)) if not lines[n].startswith("    "))
    assert last - first == 12
    return textwrap.dedent("\n".join(lines[first:last]))


def guesses(file, pictures) -> list[str]:
    """What these lines print for these image files, in a process that loads neither torch nor this package."""
    loop = f"import sys\nfor sys.argv[2] in sys.argv[2:]: exec({example()!r})"
    command = [sys.executable, "-I", "-c", loop + '\nassert not {"torch", "lwnb"} & set(sys.modules)', file, *pictures]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
