"""A network as an ExecuTorch file lowered to XNNPACK, in INT8 where wanted."""

import copy
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from lwnb.base import disk
from lwnb.data import sets
from lwnb.edge import to_onnx
from lwnb.networks import preprocessing
from lwnb.plan import facts
from lwnb.plan.run import Run
from lwnb.training import augment

FINETUNE = {"steps": 200, "batch_size": 32, "lr": 1e-3}
"""Quantisation-aware fine-tuning: SGD with momentum 0.9, BatchNorm statistics frozen from half of the steps on."""


def write(
    net: nn.Module,
    file: Path,
    image_size: int,
    batch_size: int,
    calibration: Tensor | None,
    about: dict,
    _: Path | None,
) -> None:
    """An ExecuTorch file, for one batch size; see `lwnb.plan.facts.Format`."""
    write_program(net if calibration is None else quantised(net, calibration), file, image_size, batch_size, about)


def weigh(net: nn.Module, _: Path, image_size: int) -> dict[str, int]:
    """`planned_bytes`; see `lwnb.plan.facts.Format`."""
    return {"planned_bytes": planned(net, image_size)}


def lost(net: nn.Module, run: Run, task: sets.Task, files: dict[str, Path], _: Tensor) -> tuple[dict, dict]:
    """A further file, of the network fine-tuned through the rounding; see `lwnb.plan.facts.Format`."""
    with to_onnx.quiet(), disk.whole(file := files["int8"].with_name(f"{run.key}-int8-aware.pte")) as aside:
        write_program(finetuned(net, run, task), aside, run.image_size, 1, {})
    return {}, {"int8-aware": file}


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


def write_program(graph: nn.Module, file: Path, image_size: int, batch_size: int, about: dict[str, str]) -> None:
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
    with to_onnx.quiet():
        program = _lowered(net.eval(), image_size, 1, compile_config=whole).executorch_program
    return sum(program.execution_plan[0].non_const_buffer_sizes)


def noise(image_size: int) -> Tensor:
    """(32, 3, image_size, image_size) float32: what stands for images where only costs are looked at."""
    return torch.randn(32, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


def finetuned(net: nn.Module, run: Run, task: sets.Task) -> nn.Module:
    """The network in INT8 after some steps of training through the rounding (PT2E quantisation-aware training)."""
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

    draw = torch.Generator().manual_seed(run.seed)
    graph = prepare_qat_pt2e(_captured(copy.deepcopy(net), noise(run.image_size)), _quantizer(aware=True))
    optimizer = torch.optim.SGD(graph.parameters(), lr=FINETUNE["lr"], momentum=0.9)
    for step in range(FINETUNE["steps"]):
        optimizer.param_groups[0]["lr"] = FINETUNE["lr"] * (1 - step / FINETUNE["steps"])
        chosen = torch.randint(len(task.train.labels), (FINETUNE["batch_size"],), generator=draw)
        images = preprocessing.resize(task.train.images[chosen], run.image_size)
        labels, scale = task.train.labels[chosen], facts.network(run.model).scale
        images, targets = augment.augment(run.augment, images, labels, len(task.classes), draw, scale)
        optimizer.zero_grad()
        nn.functional.cross_entropy(graph(images), targets).backward()
        optimizer.step()
    return convert_pt2e(move_exported_model_to_eval(graph))
