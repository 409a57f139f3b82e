"""One network on one runtime, in a process of its own: what loading takes, what running takes, every latency.

`python -m lwnb.edge.runtimes '{"runtime": …}'` imports the runtime, prints `READY`, waits for a line on standard input,
measures and prints one line of JSON. Nothing is imported that the runtime does not need, so that its own memory can be
told from the network's.
"""

import ctypes
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lwnb.base import doors
from lwnb.plan import facts
from lwnb.plan.facts import FORMATS, RUNTIMES, Cell
from lwnb.records.clock import Clock

Call = Callable[[np.ndarray], np.ndarray]
"""Images (N, 3, S, S) float32, normalised, to logits (N, K) float32."""

READY = "ready"
"""What a process says that has imported its runtime."""

WARMUP_CALLS, WARMUP_SECONDS = 10, 0.2
"""What goes before the first sample, whichever takes longer."""


def file_of(cell: Cell, place: Path) -> Path:
    """Where the file that a cell runs lies in a folder, once `lwnb.edge.convert` or `lwnb.edge.export` has made it."""
    form = FORMATS[RUNTIMES[cell.runtime].form]
    batch = "" if form.any_batch else f"-b{cell.batch_size}"
    shape = f"{cell.model}-{cell.image_size}px-s{cell.output_stride}-c{cell.num_classes}"
    return place / f"{shape}-{cell.precision}{batch}{form.suffix}"


# What loads a network, by runtime: see `lwnb.plan.facts.Runtime`.


def onnxruntime(threads: int) -> Callable[[dict], Call]:
    """ONNX Runtime, CPU execution provider, operators one after another.

    x86 without VNNI adds products of 8 bits in 16, which saturate,
    unless it is told to take the slower and precise way.
    """
    import onnxruntime as runtime

    def load(cell: dict) -> Call:
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.x64quantprecision", "1")
        session = runtime.InferenceSession(cell["file"], options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda images: session.run(None, {name: images})[0]

    return load


def executorch(threads: int) -> Callable[[dict], Call]:
    """ExecuTorch with the XNNPACK backend, by its Python bindings."""
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    def load(cell: dict) -> Call:
        portable_lib._unsafe_reset_threadpool(threads)  # the bindings have no public way to set the threads
        method = Runtime.get().load_program(cell["file"]).load_method("forward")
        return lambda images: method.execute([torch.from_numpy(images)])[0].numpy()

    return load


def openvino(threads: int) -> Callable[[dict], Call]:
    """OpenVINO's CPU device, told to compute in fp32 where the network does
    (it prefers bf16 on processors that have it)."""
    from openvino import Core

    def load(cell: dict) -> Call:
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        request = Core().compile_model(cell["file"], "CPU", settings).create_infer_request()
        return lambda images: request.infer([images])[0]

    return load


def pytorch_eager(threads: int) -> Callable[[dict], Call]:
    """PyTorch without any export: channels_last, inference mode, random weights."""
    import torch

    from lwnb.networks import build

    def load(cell: dict) -> Call:
        torch.set_num_threads(threads)
        net = build.build(cell["model"], cell["num_classes"], cell["output_stride"]).eval()
        net = net.to(memory_format=torch.channels_last)

        def call(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return net(torch.from_numpy(images).contiguous(memory_format=torch.channels_last)).numpy()

        return call

    return load


def loader(runtime: str, threads: int) -> Callable[[dict], Call]:
    """What loads a network for a runtime on so many threads; the runtime itself is imported now."""
    return doors.resolve(RUNTIMES[runtime].load)(threads)


def absent(*rows: facts.Runtime | facts.Format) -> dict[str, str]:
    """The packages that these runtimes and formats lack here, and the extra of lwnb that brings each (empty: none
    does).
    """
    return {package: row.extra for row in rows for package in row.needs if find_spec(package) is None}


def rows(runtime: str) -> list[facts.Runtime | facts.Format]:
    """The row of a runtime, and that of its format if it has one."""
    row = RUNTIMES[runtime]
    return [row, FORMATS[row.form]] if row.form else [row]


def sample(cell: dict) -> dict:
    """Load a network and run it until there are enough samples.

    Parameters
    ----------
    cell : `runtime`, `threads`, `batch_size`, `image_size`; `file`, or for eager PyTorch `model`, `num_classes` and
        `output_stride`; `min_calls` and `min_seconds`, both of which must be reached

    Returns
    -------
    `samples_ms`, every call after the warm-up, in order; on Linux `baseline_mib` (resident with the runtime imported),
    `load_mib` (the peak above that while the network is loaded), `run_mib` (the peak of one call above what is resident
    before it) and `peak_mib` (the peak of both above the baseline); `started`, `wall_seconds`, `other_load`, 0..1.
    """
    load = loader(cell["runtime"], cell["threads"])
    shape = (cell["batch_size"], 3, cell["image_size"], cell["image_size"])
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    clock, memory = Clock(), _Memory()
    call = load(cell)
    memory.loaded()
    call(images)
    found = memory.ran()
    _until(lambda: call(images), WARMUP_CALLS, WARMUP_SECONDS)
    samples = _until(lambda: call(images), cell["min_calls"], cell["min_seconds"])
    return {"samples_ms": [round(sample, 5) for sample in samples]} | found | clock.read()


def _until(call: Callable, calls: int, seconds: float) -> list[float]:
    """Milliseconds of each call, until there are so many and so long a time has passed."""
    samples, began = [], time.perf_counter_ns()
    while len(samples) < calls or time.perf_counter_ns() - began < seconds * 1e9:
        start = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return samples


class _Memory:
    """Resident memory of this process in MiB, from what it is at the beginning;
    nothing where the system is not Linux."""

    def __init__(self):
        self.baseline = self.before = self._settle()

    def loaded(self) -> None:
        """The network is there: its peak so far, and from where the call counts."""
        self.load = self._status("VmHWM") - self.baseline
        self.before = self._settle()

    def ran(self) -> dict:
        """The network was called once."""
        if not self.known:
            return {}
        high = self._status("VmHWM")
        peak = max(self.load, high - self.baseline)
        return {
            "baseline_mib": self.baseline,
            "load_mib": self.load,
            "run_mib": high - self.before,
            "peak_mib": peak,
        }

    known = sys.platform == "linux" and os.access("/proc/self/clear_refs", os.W_OK)

    def _settle(self) -> float:
        """Give back what is free, and let the peak begin anew at what is resident now."""
        if self.known:
            if platform.libc_ver()[0] == "glibc":
                ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: resets the peak resident set size
        return self._status("VmRSS")

    def _status(self, name: str) -> float:
        if not self.known:
            return 0.0
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """See the module."""
    cell = json.loads(sys.argv[1])
    loader(cell["runtime"], cell["threads"])
    print(READY, flush=True)
    sys.stdin.readline()
    print(json.dumps(sample(cell)))


if __name__ == "__main__":
    main()
