"""The machine that a record comes from: processor, cores, memory;
the commit of the code and the versions of packages."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from lwnb import __version__
from lwnb.base.places import CHECKOUT

INSTRUCTIONS = {
    "amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx512f": "AVX-512", "avx_vnni": "AVX-VNNI", "avx2": "AVX2",
    "i8mm": "I8MM", "asimddp": "SDOT",
}  # fmt: skip
"""Flags of Linux for what a processor has for short numbers, the widest first. Virtual machines hide its model: two
generations of one maker are then known by these alone."""


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict:
    """This machine as far as it matters to a timing: processor, its widest instructions (None where not known), cores,
    memory, system; not its name."""
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]  # x86, boards
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "instructions": next((said for flag, said in INSTRUCTIONS.items() if flag in flags), None),
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "os": platform.system(),
    }


def device(machine: dict) -> str:
    """A machine as `machine` gives it, in words."""
    more = [machine[part] for part in ("instructions", "accelerator") if machine.get(part)]
    return ", ".join(["{cpu}, {cores} cores".format(**machine), *more])


def short_commit(commit: str) -> str:
    return commit[:10] + commit[40:]


def commit() -> str:
    """The git commit of the checkout, with '+changes' when files differ from it, or 'no git'."""
    try:
        git = ["git", "-C", str(CHECKOUT)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
        return head + ("+changes" if dirty.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "no git"


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of these packages, and lwnb's own."""
    return {"lwnb": __version__} | {name: version(name) for name in packages}
