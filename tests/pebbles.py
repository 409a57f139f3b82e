"""A made-up network, format, runtime and study, as somebody would add them: a file of functions, and a row for each."""

import os
from pathlib import Path

from lwnb.plan import facts

SCALE = facts.Scale((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))

ROWS = (
    (
        facts.NETWORKS,
        "pebble",
        facts.Network(
            title="Pebble Net",
            build="pebbles:network",
            marker="*",
            licence="none needed",
            scale=SCALE,
            weights={"gravel": facts.Weights("a gravel pit", "pebbles:gravel")},
            speed=5000,
        ),
    ),
    (
        facts.FORMATS,
        "stone",
        facts.Format(
            title="Stone",
            suffix=".stone",
            write="pebbles:write",
            columns=("stone_fp32_bytes", "stone_int8_bytes", "stone_dust_bytes"),
            any_batch=True,
            weigh="pebbles:weigh",
            lost="pebbles:lost",
        ),
    ),
    (
        facts.RUNTIMES,
        "abacus",
        facts.Runtime("Abacus", "pebbles:load", form="stone", needs=("numpy",), where="any table"),
    ),
    (
        facts.STUDIES,
        "06_pebbles",
        facts.Study("Pebbles", "pebbles:runs", compared="pebbles:compared", exported=True),
    ),
)


def register() -> None:
    for table, name, row in ROWS:
        table[name] = row


def everywhere(folder: Path) -> dict[str, str]:
    """The environment in which every Python process has these rows: `sitecustomize` runs as it starts."""
    (folder / "sitecustomize.py").write_text("import pebbles\n\npebbles.register()\n")
    paths = [folder, Path(__file__).parent, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {"PYTHONPATH": os.pathsep.join(map(str, paths)).strip(os.pathsep)}


def network(name: str, num_classes: int):
    """Stride 16 in four steps: two convolutions, a pooling, a convolution. BatchNorm's momentum is not the usual
    one.
    """
    from torch import nn

    def layer(into, out):
        return [nn.Conv2d(into, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out, momentum=0.5), nn.ReLU()]

    body = nn.Sequential(*layer(3, 8), *layer(8, 16), nn.MaxPool2d(2), *layer(16, 32))
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes))
    assert name == "pebble"
    return net


def gravel(name: str) -> dict:
    import torch

    return {key: torch.full_like(value, 0.25) for key, value in network(name, 7).state_dict().items()}


def write(net, file, image_size, batch_size, calibration, about, fp32) -> None:
    """The network itself; in INT8 with a head of zeros, so that it always says the first class."""
    import copy

    import torch

    net = copy.deepcopy(net)
    if calibration is not None:
        assert (fp32 is None or fp32.exists()) and calibration.shape[1:] == (3, image_size, image_size)
        for value in net[-1].parameters():
            value.data.zero_()
    torch.save((net, about), file)


def weigh(net, fp32, image_size) -> dict:
    return {"stone_dust_bytes": 3 * image_size}


def lost(net, run, task, files, calibration) -> tuple[dict, dict]:
    return {"layers": [{"tensor": "the last stone"}]}, {"int8-aware": files["fp32"]}


def load(threads):
    import torch

    def loader(cell):
        net, _ = torch.load(cell["file"], weights_only=False)
        return lambda images: net.eval()(torch.from_numpy(images)).detach().numpy()

    return loader


def runs(p) -> list:
    from lwnb.plan import studies

    return [studies.base(p, model="pebble", lr=lr) for lr in (0.01, 0.02)]


def compared(p) -> list:
    return runs(p)[:1]
