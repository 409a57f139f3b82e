"""The smallest run that is really trained, and its numbers."""

from lwnb.batch import grid
from lwnb.plan import studies
from lwnb.plan.params import check

TINY = {
    "train_size": 240,
    "test_size": 100,
    "epochs": 3,
    "batch_size": 32,
    "models": ["shufflenet_v2_x1_0"],
    "augment": "crop",
}


def tiny(**values):
    return studies.architectures(grid.pin(check(TINY | values)))[0]


def numbers(record):
    return (
        record.metrics,
        (record.folder / "history.csv").read_bytes(),
        (record.folder / "predictions.npz").read_bytes(),
    )
