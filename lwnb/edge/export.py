"""A network as a file for an edge runtime, whatever its format."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from lwnb.base import disk, doors
from lwnb.edge import to_executorch, to_onnx
from lwnb.edge.runtimes import file_of
from lwnb.networks import build
from lwnb.plan.facts import FORMATS, RUNTIMES, Cell


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
    form : a name in `lwnb.plan.facts.FORMATS`
    batch_size : N, where the format's files serve one alone
    calibration : (M, 3, S, S) float32; with it the network becomes INT8 by static quantisation: weights symmetric for
        each channel, activations for each tensor
    about : text by name that goes into the file: ONNX's metadata, or a method `metadata` that returns it as JSON
    fp32 : the same network's fp32 file where there is one: an INT8 ONNX file is made from it, which is faster

    Raises
    ------
    ParamsError
        No format has this name; nothing is written.
    """
    write = doors.resolve(doors.known(form, FORMATS, "format").write)
    with to_onnx.quiet(), disk.whole(file) as aside:
        write(net.eval(), aside, image_size, batch_size, calibration, about or {}, fp32)


def any_file(cell: Cell, place: Path) -> Path:
    """The file that a cell of `lwnb.edge.protocol` runs: of a trained network if `convert` left one,
    else of random weights.

    What a network costs does not depend on its weights.
    """
    row, file = RUNTIMES[cell.runtime], file_of(cell, place)
    if not file.exists():
        net = build.build(cell.model, cell.num_classes, cell.output_stride)
        if cell.precision == "fp32":
            export(net, row.form, file, cell.image_size, cell.batch_size)
        else:
            fp32 = any_file(cell._replace(precision="fp32"), place) if "fp32" in row.precisions else None
            noise = to_executorch.noise(cell.image_size)
            export(net, row.form, file, cell.image_size, cell.batch_size, noise, fp32=fp32)
    return file


def footprint(cell: Cell, place: Path, formats: Sequence[str]) -> dict:
    """What a cell's network takes in each of these formats, in bytes: the `columns` of their rows."""
    found = {}
    for form in formats:
        runtime = next(name for name, row in RUNTIMES.items() if row.form == form)
        ways = {p: cell._replace(runtime=runtime, precision=p, batch_size=1) for p in RUNTIMES[runtime].precisions}
        files = {precision: any_file(way, place) for precision, way in ways.items()}
        found |= {f"{form}_{precision}_bytes": file.stat().st_size for precision, file in files.items()}
        if weigh := FORMATS[form].weigh:
            net = build.build(cell.model, cell.num_classes, cell.output_stride)
            found |= doors.resolve(weigh)(net, files.get("fp32"), cell.image_size)
    return found
