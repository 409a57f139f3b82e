"""A network as a file for an edge runtime, whatever its format."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from lwnb.base import disk
from lwnb.edge import to_executorch, to_onnx
from lwnb.edge.runtimes import file_of
from lwnb.networks import build
from lwnb.plan.facts import FORMATS, Cell


def export(
    net: nn.Module,
    form: str,
    file: Path,
    image_size: int,
    batch_size: int = 1,
    calibration: Tensor | None = None,
    about: dict[str, str] | None = None,
    fp32: Path | None = None,
) -> None:
    """Write a network as a file for an edge runtime: images (N, 3, S, S) float32, normalised, to logits (N, K).

    Parameters
    ----------
    form : `onnx`, for any N; or `executorch`, lowered to XNNPACK, for N = `batch_size` alone
    calibration : (M, 3, S, S) float32; with it the network becomes INT8 by static quantisation: weights symmetric for
        each channel, activations for each tensor
    about : text by name that goes into the file: ONNX's metadata, or a method `metadata` that returns it as JSON
    fp32 : the same network's fp32 ONNX file where there is one: an INT8 ONNX file is made from it, which is faster
    """
    net = net.eval()
    with to_onnx.quiet(), disk.whole(file) as aside:
        if form == "onnx":
            to_onnx.write(net, aside, image_size, calibration, about or {}, fp32)
        else:
            graph = net if calibration is None else to_executorch.quantised(net, calibration)
            to_executorch.write_program(graph, aside, image_size, batch_size, about or {})


def any_file(cell: Cell, place: Path) -> Path:
    """The file that a cell of `lwnb.edge.protocol` runs: of a trained network if `convert` left one,
    else of random weights.

    What a network costs does not depend on its weights.
    """
    form, file = FORMATS[cell.runtime], file_of(cell, place)
    if not file.exists():
        net = build.build(cell.model, cell.num_classes, cell.output_stride)
        if cell.precision == "fp32":
            export(net, form, file, cell.image_size, cell.batch_size)
        else:
            fp32 = any_file(cell._replace(precision="fp32"), place) if form == "onnx" else None
            export(net, form, file, cell.image_size, cell.batch_size, to_executorch.noise(cell.image_size), fp32=fp32)
    return file


def footprint(cell: Cell, place: Path, formats: Sequence[str]) -> dict:
    """Bytes of the deployed files of a cell's network, in each format and precision, and of its planned activations.

    Returns
    -------
    `onnx_fp32_bytes`, `onnx_fp16_bytes`, `onnx_int8_bytes`; `executorch_fp32_bytes`, `executorch_int8_bytes`,
    `planned_bytes`, see `planned`
    """
    found = {}
    for form in formats:
        for precision in ("fp32", "int8"):
            runtime = next(name for name, its in FORMATS.items() if its == form)
            one = cell._replace(runtime=runtime, precision=precision, batch_size=1)
            found[f"{form}_{precision}_bytes"] = (file := any_file(one, place)).stat().st_size
            if (form, precision) == ("onnx", "fp32"):
                found["onnx_fp16_bytes"] = to_onnx.half_bytes(file)
    if "executorch" in formats:
        found["planned_bytes"] = to_executorch.planned(
            build.build(cell.model, cell.num_classes, cell.output_stride), cell.image_size
        )
    return found
