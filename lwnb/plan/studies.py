"""Parameters -> the list of runs of each study: pure, no data, no torch, so that a plan costs nothing."""

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lwnb.base import doors
from lwnb.base.errors import ParamsError, nearest
from lwnb.plan import facts
from lwnb.plan.facts import DATASETS
from lwnb.plan.paramfiles import files_of, read
from lwnb.plan.params import Params
from lwnb.plan.run import KEY, Run, Source
from lwnb.plan.tuned import chosen


def base(p: Params, seed: int = 0, **changes) -> Run:
    """The run that the parameters describe; seeds vary initialisation, order, augmentation and split together."""
    fields = ("dataset", "digest", "test_size", "val_share", "subset_seed", "image_size", "output_stride")
    fields += ("augment", "optimizer", "lr", "weight_decay", "label_smoothing", "schedule", "warmup_epochs")
    fields += ("batch_size", "epochs", "select", "patience", "precision", "weights", "recipe")
    values = {name: getattr(p, name) for name in fields}
    values |= {"train_size": p.train_size, "seed": seed, "split_seed": seed, "source": source(p)} | changes
    for size, pool in (("train_size", p.pool_train), ("test_size", p.pool_test)):
        if values["digest"] == p.digest and pool and values[size] >= pool:
            values[size] = 0  # more than there are is all of them: one key, not two
    return Run(**values)


def source(p: Params) -> Source:
    """Where the data of these parameters come from."""
    return Source(**{name: getattr(p, name) for name in Source.model_fields})


def seeds(p: Params, count: int = 0) -> range:
    """The seeds of a study that wants so many; 0: as many as the page has."""
    return range(p.first_seed, p.first_seed + (count or p.seeds))


def architectures(p: Params) -> list[Run]:
    """Every network under one recipe, each seed; where learning rates were tuned, each network at its own."""
    rates = {model: tuned(p, model) for model in p.models}
    return [base(p, seed, model=model, lr=rates[model]) for model in p.models for seed in seeds(p)]


def ladder(p: Params, model: str) -> list[Run]:
    """A network's ladder of learning rates, from the lowest up, with the first seed,
    of `tune_epochs` or else `epochs`."""
    epochs = p.tune_epochs or p.epochs
    return [base(p, p.first_seed, model=model, lr=lr, epochs=epochs) for lr in sorted(p.tune_lrs)]


def tuned(p: Params, model: str) -> float:
    """The learning rate that `lwnb tune` chose for a network of these parameters, else `lr`."""
    return p.tune_lrs and chosen(ladder(p, model)) or p.lr


def transfer(p: Params) -> list[Run]:
    """From scratch, from a frozen backbone and by full fine-tuning: each by training-set size and learning rate.

    All three arms try the same learning rates. The run that pretrains the source, if there is one, comes first.
    """
    origin, weights, target = _origin(p)
    arms = [{"weights": "none"}, weights | {"freeze": True}, weights]
    sizes = sorted({min(size or math.inf, p.train_size or math.inf) for size in p.transfer_sizes})  # 0 is no bound
    tasks = itertools.product(sizes, arms, p.transfer_lrs, seeds(p))
    return origin + [
        base(p, seed, model=p.transfer_model, train_size=0 if size == math.inf else size, lr=lr, **target, **arm)
        for size, arm, lr, seed in tasks
    ]


def on_target(p: Params) -> list[Run]:
    """The runs of `transfer` on the target's own task: all but those that pretrain a source."""
    return transfer(p)[len(_origin(p)[0]) :]


def published_weights(p: Params) -> list[tuple[str, str]]:
    """The published weights that a page starts from: the network and the name of its weights."""
    starts = {(p.transfer_model, p.source), *((model, p.weights) for model in p.models)}
    return sorted((model, source) for model, source in starts if source in facts.sources())


def about_source(p: Params) -> str:
    """Where the weights of `transfer` come from, in words."""
    origin, weights, target = _origin(p)
    if p.source in facts.sources():
        return facts.published_weights(p.transfer_model, p.source).title
    if not origin:
        return f"`{weights['weights']}`"
    run, kind = origin[0], "other classes of the same data set" if target else "another data set"
    task = f"; the target is its classes {target['classes']}" if target else ""
    classes = "all classes" if run.classes == "all" else f"classes {run.classes}"
    return f"{run.dataset}, {classes} ({kind}, pretrained by run `{run.key}`, {run.epochs} epochs){task}"


def _origin(p: Params) -> tuple[list[Run], dict, dict]:
    """The source's own runs, the fields that start from it, and the fields of the target's task."""
    if p.source in facts.sources():
        return [], {"weights": p.source}, {}
    if p.source == "classes":
        half = p.num_classes // 2
        if half < 2:
            raise ParamsError(
                "source: 'classes' is not possible: half of the classes are the source and half the target, each needs "
                f"2, and there are {p.num_classes}. "
                "Name another source, such as cifar100, or leave 02_transfer out of notebooks"
            )
        recipe = {"model": p.transfer_model, "train_size": p.source_train_size, "epochs": p.source_epochs}
        run = base(p, p.first_seed, classes=f"0:{half}", weights="none", **recipe)
        return [run], {"weights": run.key}, {"classes": f"{half}:{p.num_classes}"}
    if p.source in DATASETS:
        target = DATASETS[p.dataset]
        # a page that downloads nothing downloads no source either: without its images, its weights alone are used
        root = (None if target.own else p.data_root) or (None if target.origin else "data")
        run = pretraining(p.source, p.transfer_model, root)
        return [run], {"weights": run.key}, {}
    if p.source.endswith(".safetensors"):
        return [], _weights_file(Path(p.source)), {}
    if re.fullmatch(KEY, p.source):
        return [], {"weights": p.source}, {}
    allowed = [*facts.sources(), "classes", *DATASETS]
    raise ParamsError(
        f"source: {p.source!r} is not possible: allowed are {', '.join(allowed)}, a path to a .safetensors file "
        f"and the key of a finished run{nearest(p.source, allowed)}"
    )


def pretraining(dataset: str, model: str, data_root: str | None = None) -> Run:
    """The run that pretrains a network on a whole data set, as `params/pretrain-<dataset>.yaml` says.

    Raises
    ------
    ParamsError
        There is no such file.
    """
    p = read(*files_of(f"pretrain-{dataset}"), data_root=data_root)
    return base(p, p.first_seed, model=model)


def _weights_file(path: Path) -> dict:
    if not path.exists():
        raise ParamsError(f"source: {str(path)!r} is not possible: there is no such file")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"weights": f"sha256:{digest}", "weights_file": str(path.resolve())}


def augmentation(p: Params) -> list[Run]:
    """One network under every policy, each seed."""
    fixed = {"model": p.augment_model, "lr": tuned(p, p.augment_model)}
    return [base(p, seed, augment=policy, **fixed) for policy in p.policies for seed in seeds(p, p.augment_seeds)]


def hyperparameters(p: Params) -> list[Run]:
    """One network over optimiser, learning rate, batch size, schedule and weight decay."""
    points = _grid(p) if p.design == "grid" else _sobol(p)
    return [base(p, seed, model=p.hyper_model, **point) for point in points for seed in seeds(p, p.hyper_seeds)]


def _rates(p: Params, optimizer: str) -> list[float]:
    return p.sgd_lrs if optimizer == "sgd" else p.adamw_lrs


def _grid(p: Params) -> list[dict]:
    axes = (p.hyper_batch_sizes, p.hyper_schedules, p.hyper_weight_decays)
    return [
        {"optimizer": name, "lr": lr, "batch_size": batch, "schedule": schedule, "weight_decay": decay}
        for name in p.hyper_optimizers
        for lr, batch, schedule, decay in itertools.product(_rates(p, name), *axes)
    ]


def _sobol(p: Params) -> list[dict]:
    """A scrambled Sobol sequence: learning rates log-uniform between the ends of their list,
    the rest by equal shares."""
    from scipy.stats import qmc

    size = (p.trials - 1).bit_length()  # a Sobol sequence is balanced in powers of two
    sample = qmc.Sobol(d=5, scramble=True, rng=p.first_seed).random_base2(size)[: p.trials]
    points = []
    for a, b, c, d, e in sample:
        optimizer = _pick(p.hyper_optimizers, a)
        low, high = min(_rates(p, optimizer)), max(_rates(p, optimizer))
        points.append(
            {
                "optimizer": optimizer,
                "lr": float(f"{low * (high / low) ** b:.3g}"),
                "batch_size": _pick(p.hyper_batch_sizes, c),
                "schedule": _pick(p.hyper_schedules, d),
                "weight_decay": _pick(p.hyper_weight_decays, e),
            }
        )
    return points


def _pick(choices: list, share: float):
    return choices[min(int(share * len(choices)), len(choices) - 1)]


def deployment(p: Params) -> list[Run]:
    """The runs of `architectures` with the first seed: those whose networks are exported and quantised."""
    return [run for run in architectures(p) if run.seed == p.first_seed]


def runs(p: Params, only: Sequence[str] = facts.STUDIES) -> list[Run]:
    """The distinct runs of a page's studies, or of those among them that are named."""
    return distinct(run for name in p.notebooks if name in only for run in trained(name, p))


def trained(study: str, p: Params) -> list[Run]:
    """All runs of a study."""
    return doors.resolve(facts.STUDIES[study].runs)(p)


def compared(study: str, p: Params) -> list[Run]:
    """The runs of a study that are compared with one another."""
    row = facts.STUDIES[study]
    return doors.resolve(row.compared or row.runs)(p)


def exported(p: Params) -> list[Run]:
    """The runs whose networks a page shows exported to its runtimes."""
    return distinct(run for name in p.notebooks if facts.STUDIES[name].exported for run in trained(name, p))


def distinct(runs: Iterable[Run]) -> list[Run]:
    """Each run once, in the order of its first mention."""
    return list({run.key: run for run in runs}.values())
