"""A network as an ONNX file, in INT8 where wanted, and where INT8 departs from fp32."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lwnb.data import sets
from lwnb.plan.run import Run


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters tell much that no user of ours can mend."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def write(
    net: nn.Module, file: Path, image_size: int, _: int, calibration: Tensor | None, about: dict, fp32: Path | None
) -> None:
    """An ONNX file, for any batch size; see `lwnb.plan.facts.Format`."""
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


def weigh(_: nn.Module, fp32: Path, image_size: int) -> dict[str, int]:
    """`onnx_fp16_bytes`; see `lwnb.plan.facts.Format`."""
    return {"onnx_fp16_bytes": half_bytes(fp32)}


def half_bytes(file: Path) -> int:
    """Bytes of an ONNX file with its weights and arithmetic in fp16."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        return convert_float_to_float16(onnx.load(file), keep_io_types=True).ByteSize()


def lost(_: nn.Module, run: Run, task: sets.Task, files: dict[str, Path], calibration: Tensor) -> tuple[dict, dict]:
    """`layers`, see `worst_layers`, and no further files; see `lwnb.plan.facts.Format`."""
    return {"layers": worst_layers(files["fp32"], files["int8"], calibration)}, {}


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
    with quiet(), _prepared(fp32) as ready, tempfile.TemporaryDirectory() as place:
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
