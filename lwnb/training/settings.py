"""How a run uses the machine: threads, memory format, optimiser kernel, allocator. None of it is part of a run's
key."""

import ctypes
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lwnb.base import disk


@dataclass(frozen=True)
class Setting:
    """What a run keeps from its first epoch to its last, through every kill; recorded in its environment.

    `threads` of the processor; `memory_format`, channels_last or contiguous_format; `fused`, the optimiser in one
    kernel instead of a loop; `keep_memory`, freed memory stays in the process instead of going back to the system.
    """

    device: str
    threads: int
    memory_format: str
    fused: bool
    keep_memory: bool


def fastest() -> Setting:
    """The fastest setting known, with the threads that this process has.

    `python -m benchmarks.engine` compares settings; `results/engine.jsonl` holds what it measured.
    """
    accelerator = torch.accelerator.is_available()
    return Setting(
        device=torch.accelerator.current_accelerator().type if accelerator else "cpu",
        threads=torch.get_num_threads(),
        memory_format="channels_last",
        fused=True,
        keep_memory=True,
    )


@contextmanager
def settled(folder: Path) -> Iterator[Setting]:
    """The setting that a run began with, if its folder has one for this device, else the fastest; in force meanwhile.

    So a run that was killed ends with the same numbers to the last bit although it is resumed where other threads are
    usual.
    """
    file, chosen = folder / "setting.json", fastest()
    begun = Setting(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None
    if begun and begun.device == chosen.device:
        chosen = begun
    else:
        disk.write(file, json.dumps(asdict(chosen)).encode())
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    torch.set_num_threads(chosen.threads)
    torch.backends.cudnn.allow_tf32 = False  # torch's default: a GPU's convolutions keep 10 bits of the mantissa
    allocate(chosen.keep_memory)
    try:
        yield chosen
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = tf32


def allocate(keep: bool) -> None:
    """Let freed memory stay in the process from now on where the C library is glibc; leave new memory as it is.

    Networks allocate and free the same large blocks at every step: giving them back costs page faults, and filling new
    ones is a check of PyTorch's deterministic mode that changes no result of ours. Without `keep` the C library stays
    as it is: setting its own first values again would end its adapting to what is asked of it, and halved
    MobileNetV3-Small's speed.
    """
    torch.utils.deterministic.fill_uninitialized_memory = False
    if keep and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 2**30 - 1)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def release() -> None:
    """Give freed memory back to the system, also what `allocate` keeps: after a run that ran out of it."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
