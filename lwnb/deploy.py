"""A network for a device: exported to ONNX or ExecuTorch, in INT8 where wanted, and checked on the test split."""

import contextlib
import copy
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lwnb import augment, data, disk, evaluation, models, runtimes
from lwnb.conversions import LOSS
from lwnb.params import Run
from lwnb.results import Record
from lwnb.runtimes import FORMATS, SUFFIXES, Cell, file_of

CALIBRATION = 128
"""Training images that the ranges of INT8 activations are taken from."""

FINETUNE = {"steps": 200, "batch_size": 32, "lr": 1e-3}
"""Quantisation-aware fine-tuning: SGD with momentum 0.9, BatchNorm statistics frozen from half of the steps on."""

TERMS = {
    "digits": "CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)",
    "cifar10": "no licence stated; cite Krizhevsky 2009",
    "cifar100": "no licence stated; cite Krizhevsky 2009",
    "tiny-imagenet": "ImageNet's terms: non-commercial research and education only",
    "folder": "the terms of the images' owner",
}
"""The terms of the images that a network was trained on: see the book's page on data sets."""

SIDES = {"digits": 8, "cifar10": 32, "cifar100": 32, "tiny-imagenet": 64}
"""Pixels a side of the images of data sets with a size of their own; a folder's are read at a run's `image_size`."""

INPUT = (
    "images, N x 3 x image_size x image_size, float32, RGB. From an image file, as in training: turned as its EXIF "
    "data say; 16-bit grey divided by 257; laid on white where it is transparent; for each of sizes in turn resized by "
    "its shorter side (bilinear, antialiased) and cropped about the centre; then (pixel / 255 - mean) / std"
)
"""The input of a shipped network, in words: what `images.decode`, `augment.resize` and `augment.normalise` make."""


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
    with _quiet(), disk.whole(file) as aside:
        if form == "onnx":
            _onnx(net, aside, image_size, calibration, about or {}, fp32)
        else:
            graph = net if calibration is None else quantised(net, calibration)
            _executorch(graph, aside, image_size, batch_size, about or {})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters tell much that no user of ours can mend."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _onnx(
    net: nn.Module, file: Path, image_size: int, calibration: Tensor | None, about: dict, fp32: Path | None
) -> None:
    import onnx

    if not fp32:
        program = torch.onnx.export(
            net,
            (torch.zeros(2, 3, image_size, image_size),),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
        program.save(file)
    if calibration is not None:
        _quantise_onnx(fp32 or file, file, calibration)
    if about:
        model = onnx.load(file)
        onnx.helper.set_model_props(model, about)
        onnx.save(model, file)


def _quantise_onnx(fp32: Path, file: Path, calibration: Tensor) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with _prepared(fp32) as ready:
        quantize_static(
            ready,
            file,
            _Images(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


@contextlib.contextmanager
def _prepared(file: Path) -> Iterator[Path]:
    """The network as ONNX Runtime fuses it: what is quantised, and what a quantised layer is compared with."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as place:
        ready = Path(place, "ready.onnx")
        quant_pre_process(file, ready, skip_symbolic_shape=True)
        yield ready


class _Images:
    """Calibration images as ONNX Runtime asks for them: batch by batch until None, or as an iterator."""

    def __init__(self, images: Tensor):
        self.batches = iter(images.split(32))

    def get_next(self) -> dict | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch.numpy()}

    def __iter__(self) -> Iterator[dict]:
        return iter(self.get_next, None)


def quantised(net: nn.Module, calibration: Tensor) -> nn.Module:
    """The network in INT8 as XNNPACK computes it, for any batch (PT2E static quantisation)."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    graph = prepare_pt2e(_captured(net, calibration), _quantizer())
    with torch.no_grad():
        for batch in calibration.split(32):
            graph(batch)
    return convert_pt2e(graph)


def _captured(net: nn.Module, images: Tensor) -> nn.Module:
    return torch.export.export(net, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()


def _quantizer(aware: bool = False):
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    return XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_qat=aware))


def _executorch(graph: nn.Module, file: Path, image_size: int, batch_size: int, about: dict[str, str]) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    lowered = _lowered(
        graph,
        image_size,
        batch_size,
        partitioner=[XnnpackPartitioner()],
        constant_methods={"metadata": json.dumps(about)} if about else None,
    )
    file.write_bytes(lowered.buffer)


def _lowered(graph: nn.Module, image_size: int, batch_size: int, **options):
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(graph, (torch.zeros(batch_size, 3, image_size, image_size),))
    return to_edge_transform_and_lower(program, **options).to_executorch()


def planned(net: nn.Module, image_size: int) -> int:
    """Bytes that ExecuTorch's ahead-of-time planner reserves for the activations of one image, its input included.

    Of the portable lowering in fp32: with XNNPACK the plan holds only what passes its borders. A linear layer is kept
    whole, for as a matrix product it would copy its weights, and the plan would count the copy as activation.
    """
    from executorch.exir import EdgeCompileConfig

    whole = EdgeCompileConfig(preserve_ops=[torch.ops.aten.linear.default])
    with _quiet():
        program = _lowered(net.eval(), image_size, 1, compile_config=whole).executorch_program
    return sum(program.execution_plan[0].non_const_buffer_sizes)


def any_file(cell: Cell, place: Path) -> Path:
    """The file that a cell of `lwnb.devices` runs: of a trained network if `convert` left one, else of random weights.

    What a network costs does not depend on its weights.
    """
    form, file = FORMATS[cell.runtime], file_of(cell, place)
    if not file.exists():
        net = models.build(cell.model, cell.num_classes, cell.output_stride)
        if cell.precision == "fp32":
            export(net, form, file, cell.image_size, cell.batch_size)
        else:
            fp32 = any_file(cell._replace(precision="fp32"), place) if form == "onnx" else None
            export(net, form, file, cell.image_size, cell.batch_size, _noise(cell.image_size), fp32=fp32)
    return file


def _noise(image_size: int) -> Tensor:
    return torch.randn(32, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


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
                found["onnx_fp16_bytes"] = _half(file)
    if "executorch" in formats:
        found["planned_bytes"] = planned(
            models.build(cell.model, cell.num_classes, cell.output_stride), cell.image_size
        )
    return found


def _half(file: Path) -> int:
    """Bytes of an ONNX file with its weights and arithmetic in fp16."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quiet():
        return convert_float_to_float16(onnx.load(file), keep_io_types=True).ByteSize()


# --- Trained networks ---


def convert(record: Record, wanted: Sequence[str], place: Path) -> list[dict]:
    """Export a trained network to each runtime in fp32 and INT8, and test every file on the run's test images.

    Copies of the files stay for `any_file`, which would else export the same shape again.

    Returns
    -------
    A row a file: `runtime`, `precision` (`int8-aware` is fine-tuned, see `finetuned`), `size_bytes`, `top1`, `agree` (the
    share of images for which it says what PyTorch says), `error` (the largest difference of a logit over the largest
    logit), `predictions` (N,), and for an ONNX file that loses more than `LOSS`, `layers`: see `worst_layers`.
    """
    run, task = record.run, data.task(record.run)
    net = load(record)
    reference = evaluation.evaluate(net, task.test.images, run.image_size).numpy()
    images, calibration = _inputs(task.test.images, run.image_size), calibrating(run, task)
    labels, rows = task.test.labels.numpy(), []
    right = (reference.argmax(1) == labels).mean()

    def row(runtime: str, precision: str, file: Path) -> dict:
        logits = _logits(runtime, file, images)
        found = {"runtime": runtime, "precision": precision, "size_bytes": file.stat().st_size}
        found |= {"top1": float((logits.argmax(1) == labels).mean())}
        found |= {"agree": float((logits.argmax(1) == reference.argmax(1)).mean())}
        found |= {"error": float(np.abs(logits - reference).max() / np.abs(reference).max())}
        return found | {"predictions": logits.argmax(1).tolist()}

    for runtime in wanted:
        form = FORMATS[runtime]
        files = {precision: place / f"{run.key}-{precision}{SUFFIXES[form]}" for precision in ("fp32", "int8")}
        export(net, form, files["fp32"], run.image_size)
        export(net, form, files["int8"], run.image_size, calibration=calibration, fp32=files["fp32"])
        rows += [row(runtime, precision, file) for precision, file in files.items()]
        for precision, file in files.items():
            cell = Cell(run.model, len(task.classes), run.image_size, run.output_stride, runtime, precision)
            with disk.whole(file_of(cell, place)) as aside:
                shutil.copyfile(file, aside)
        if right - rows[-1]["top1"] > LOSS and form == "onnx":
            rows[-1]["layers"] = worst_layers(files["fp32"], files["int8"], calibration)
        elif right - rows[-1]["top1"] > LOSS:
            with _quiet(), disk.whole(aware := place / f"{run.key}-int8-aware.pte") as aside:
                _executorch(finetuned(net, run, task), aside, run.image_size, 1, {})
            rows.append(row(runtime, "int8-aware", aware))
    return rows


def load(record: Record) -> nn.Module:
    """The network of a finished run with its weights.

    Raises
    ------
    lwnb.models.WeightsError
        This machine does not have the weights.
    """
    if not record.weights:
        raise models.WeightsError(
            f"run {record.run.key} has no weights on this machine: published records carry none; train it here"
        )
    net = models.build(record.run.model, record.metrics["num_classes"], record.run.output_stride)
    net.load_state_dict(models.read(record.weights))
    return net.eval()


def calibrating(run: Run, task: data.Task) -> Tensor:
    """(M, 3, S, S) float32: `CALIBRATION` training images, or all there are, the same ones for each run's seed."""
    order = torch.randperm(len(task.train.labels), generator=torch.Generator().manual_seed(run.seed))
    return _inputs(task.train.images[order[:CALIBRATION]], run.image_size)


def _inputs(images: Tensor, image_size: int) -> Tensor:
    return augment.normalise(augment.resize(images, image_size))


def _logits(runtime: str, file: Path, images: Tensor) -> np.ndarray:
    call = runtimes.RUNTIMES[runtime](torch.get_num_threads())({"file": str(file)})
    size = 1 if FORMATS[runtime] == "executorch" else 128
    with _quiet():
        return np.concatenate([call(batch.contiguous().numpy()).copy() for batch in images.split(size)])


def worst_layers(fp32: Path, int8: Path, images: Tensor, most: int = 5) -> list[dict]:
    """Where an INT8 ONNX file departs from its fp32 one: the tensors with the lowest signal-to-noise ratio.

    Both are run on the same images. Signal and noise are taken without their mean over the images, for a constant part
    of either says nothing about which class an image is.

    Returns
    -------
    `tensor`, `place` (its number in the order of computation, of `of`) and `snr_db`, the lowest first
    """
    from onnxruntime.quantization import qdq_loss_debug as debug

    found, few = [], images[:32]
    with _quiet(), _prepared(fp32) as ready, tempfile.TemporaryDirectory() as place:
        outputs = []
        for number, model in enumerate((ready, int8)):
            debug.modify_model_output_intermediate_tensors(model, wide := Path(place, f"{number}.onnx"))
            outputs.append(debug.collect_activations(str(wide), _Images(few)))
        for tensor, pair in debug.create_activation_matching(outputs[1], outputs[0]).items():
            if "float" in pair:
                exact, rough = (np.concatenate([np.asarray(x) for x in pair[name]]) for name in ("float", "post_qdq"))
                found.append({"tensor": tensor, "place": len(found) + 1, "snr_db": _snr(exact, rough - exact)})
    return [one | {"of": len(found)} for one in sorted(found, key=lambda one: one["snr_db"])[:most]]


def _snr(signal: np.ndarray, noise: np.ndarray) -> float:
    """Decibels of (N, ...) over (N, ...), each without its mean over N."""
    power = [((part - part.mean(0)) ** 2).mean() for part in (signal.astype(float), noise.astype(float))]
    return float(10 * np.log10(max(power[0], 1e-30) / max(power[1], 1e-30)))


def finetuned(net: nn.Module, run: Run, task: data.Task) -> nn.Module:
    """The network in INT8 after some steps of training through the rounding (PT2E quantisation-aware training)."""
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

    draw = torch.Generator().manual_seed(run.seed)
    graph = prepare_qat_pt2e(_captured(copy.deepcopy(net), _noise(run.image_size)), _quantizer(aware=True))
    optimizer = torch.optim.SGD(graph.parameters(), lr=FINETUNE["lr"], momentum=0.9)
    for step in range(FINETUNE["steps"]):
        optimizer.param_groups[0]["lr"] = FINETUNE["lr"] * (1 - step / FINETUNE["steps"])
        chosen = torch.randint(len(task.train.labels), (FINETUNE["batch_size"],), generator=draw)
        images = augment.resize(task.train.images[chosen], run.image_size)
        images, targets = augment.augment(run.augment, images, task.train.labels[chosen], len(task.classes), draw)
        optimizer.zero_grad()
        nn.functional.cross_entropy(graph(images), targets).backward()
        optimizer.step()
    return convert_pt2e(move_exported_model_to_eval(graph))


def sizes(run: Run) -> list[int]:
    """The sides in pixels that an image is brought to one after the other: that of its data set, then `image_size`.

    A photograph is first made as small as the images that the network has learned from, and then enlarged as they were.
    """
    return list(dict.fromkeys([SIDES.get(run.dataset, run.image_size), run.image_size]))


def about(record: Record) -> dict[str, str]:
    """What a deployed file tells of itself: classes, preprocessing, terms of the data, the run that it comes from."""
    run = record.run
    return {
        "classes": json.dumps(record.metrics["classes"]),
        "image_size": str(run.image_size),
        "sizes": json.dumps(sizes(run)),
        "input": INPUT,
        "mean": json.dumps(augment.MEAN),
        "std": json.dumps(augment.STD),
        "output": "logits, N x classes",
        "model": run.model,
        "dataset": run.dataset,
        "data_terms": TERMS[run.dataset],
        "run": run.key,
    }


def ship(record: Record, form: str, int8: bool, file: Path) -> None:
    """Write the network of a finished run as a file that can be shipped; see `export` and `about`."""
    net = load(record)
    calibration = calibrating(record.run, data.task(record.run)) if int8 else None
    export(net, form, file, record.run.image_size, calibration=calibration, about=about(record))
