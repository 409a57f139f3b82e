"""What cannot run is refused before anything trains."""

from collections.abc import Iterable

from lwnb.base.errors import DataError, ParamsError
from lwnb.batch import estimates
from lwnb.plan import facts
from lwnb.plan.facts import DATASETS
from lwnb.plan.run import Run, Source
from lwnb.records import results


def refuse(runs: Iterable[Run], ahead: estimates.Outlook | None = None) -> None:
    """Refuse, before anything trains, what would stop these runs: their images, splits, networks or weights.

    Only runs that must be trained count. Images that would have to be downloaded are taken as they should be. `ahead`
    is the runs' outlook, where it is known.

    Raises
    ------
    ParamsError, DataError
        What is wrong, once, whatever the number of runs that it would stop.
    """
    ahead = ahead or estimates.outlook(runs)
    todo, known = ahead.missing, {run.key for run in ahead.runs}
    for run in {(r.model, r.image_size, r.output_stride): r for r in todo}.values():
        _check_network(run)
    for run in {(r.parent, r.model): r for r in todo if r.parent and r.parent not in known}.values():
        _check_weights(run)
    sources = {run.parent for run in todo}
    for run in {(r.source, r.digest, r.image_size, r.classes, r.train_size, r.val_share): r for r in todo}.values():
        _check_images(run, run.key in sources)


def _check_network(run: Run) -> None:
    smallest = facts.network(run.model).smallest
    if smallest and run.image_size >= smallest:
        return  # known to work, and the rest takes torch
    from lwnb.networks import counts

    try:
        counts.cost(run.model, 2, run.image_size, run.output_stride)
    except (ValueError, RuntimeError, AssertionError) as error:  # as torch and torchvision have it
        reason = str(error).strip().splitlines()[-1]
        raise ParamsError(
            f"image_size: {run.image_size} is not possible for {run.model} at output stride {run.output_stride}: take "
            f"{f'{smallest} px or more' if smallest else 'another size'}, or leave it out of models ({reason})"
        ) from None


def _check_weights(run: Run) -> None:
    record = results.find_key(run.parent)
    if not record or not record.weights:
        what = "has no weights on this machine" if record else "is not here"
        raise ParamsError(f"source: run {run.parent} {what}; train it here first, or name another source")
    if record.run.model != run.model:
        raise ParamsError(
            f"source: run {run.parent} is a {record.run.model}, and its weights do not fit a {run.model}: "
            "name another source or another transfer_model"
        )


def _check_images(run: Run, is_source: bool) -> None:
    from lwnb.data import archives

    try:
        if DATASETS[run.dataset].inside or archives.here(run.source or Source(dataset=run.dataset)):
            from lwnb.data import sets

            sets.task(run)
    except DataError as error:
        if not is_source:
            raise
        raise DataError(
            f"source: the weights of run {run.key}, pretrained on {run.dataset}, are not here, "
            f"and it cannot be trained: {error}"
        ) from None
