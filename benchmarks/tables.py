"""The tables of the comparison, made from the results alone."""

import math
import statistics

import numpy as np
import pandas as pd
from statsmodels.stats.weightstats import ttost_ind

from benchmarks.plan import CORES, GROWTH, SIDES, Wish

LETTERS = dict(zip(SIDES, ("a", "a'", "b", "c", "d", "e"), strict=True))
"""The sides as the tables name them."""

MARGIN = 0.01
"""Accuracies whose difference is surely smaller count as equal: one point of top-1."""


def show(rows: list[dict], wish: Wish) -> None:
    """Print everything; the last line is the geometric mean."""
    machines = [row for row in rows if row["job"]["part"] == "machine"]
    for row in machines[:1]:
        print(about(row, rows, wish))
    jobs = frame([row for row in rows if row["job"]["part"] != "machine"])
    compared = jobs[jobs["part"] == "compare"]
    if len(compared):
        _print("One run, whole job, by network and side", sides(compared, machines[0] if machines else None))
        _print("Equality of accuracy with (a), margin 1 point (TOST, Welch, alpha 0.05)", equalities(compared))
    if len(jobs[jobs["part"] == "grid"]):
        _print("All networks, two seeds: local workers against (a) one after another", grids(jobs))
    for part in GROWTH:
        if len(chosen := jobs[jobs["part"] == part]):
            _print(f"How cost grows: {part}", growth(chosen))
    if len(chosen := jobs[jobs["part"] == "workers"]):
        _print("How cost grows: runs and workers", throughput(chosen))
    print(last_line(compared))


def _print(title: str, table: pd.DataFrame) -> None:
    print(f"\n{title}\n\n{table.to_string(index=False, na_rep='', float_format='{:.4g}'.format)}")


def about(machine: dict, rows: list[dict], wish: Wish) -> str:
    """Where and what: the machine, its peak, versions, commits, data and protocol."""
    p, peak = wish.page, machine["peak_gflops"]
    loads = statistics.median(row["load_1min"] for row in rows)
    epochs = {name: wish.run(name).epochs for name in wish.models}
    counts = ", ".join(f"{number} {name}" for name, number in machine["splits"].items())
    lines = [
        ", ".join(f"{name} {value}" for name, value in machine["machine"].items()),
        f"peak of 3x3 convolution: fp32 {peak['float32']:.0f}, bf16 {peak['bfloat16']:.0f} GFLOP/s on {CORES} cores",
        f"versions {machine['versions']}, commits {sorted({row['commit'] for row in rows})}",
        f"median load average as the jobs began: {loads:.1f}",
        f"{p.dataset}: images {counts}; {p.image_size} px, output stride {p.output_stride}, batch {p.batch_size}",
        f"epochs {epochs}, augmentation {p.augment}, {p.optimizer}, cosine from {p.lr} to 0",
    ]
    return "\n".join(lines)


def frame(rows: list[dict]) -> pd.DataFrame:
    """A row a job: its part, side, network, seed, sizes; wall seconds, images/s of its epochs, memory, accuracy."""
    columns = ["part", "side", "model", "seed", "precision", "image_size", "output_stride", "train_size", "batch_size"]
    columns += ["runs", "workers", "threads", "repeat", "wall_s", "images_per_s", "memory_mib", "tree_memory_mib"]
    columns += ["top1", "train_loss"]
    found = []
    for row in rows:
        job, run = row["job"], row["job"]["runs"][0]
        flat = {name: (row | job | run)[name] for name in columns if name in row | job | run}
        flat["runs"] = len(job["runs"])
        if "epoch_seconds" in row:
            flat["images_per_s"] = row["images"] / statistics.median(row["epoch_seconds"])
        found.append(flat)
    return pd.DataFrame(found, columns=columns)


def ratios(compared: pd.DataFrame) -> pd.DataFrame:
    """Wall time of each job over that of (d) with the same network and seed."""
    ours = compared[compared["side"] == "lwnb"][["model", "seed", "wall_s"]]
    both = compared.merge(ours, on=["model", "seed"], suffixes=("", "_d"))
    return both.assign(ratio=both["wall_s"] / both["wall_s_d"])


def sides(compared: pd.DataFrame, machine: dict | None) -> pd.DataFrame:
    """Each network by each side: wall time, ratio to (d), throughput, share of the peak, memory, accuracy."""
    ratio = ratios(compared).groupby(["model", "side"])["ratio"].agg(["median", "min", "max"])
    rows = []
    for (model, side), group in compared.groupby(["model", "side"], sort=False):
        speed, top1 = group["images_per_s"].median(), group["top1"].astype(float)
        row = {"network": model, "side": f"({LETTERS[side]}) {side}", "seeds": len(group)}
        row |= {"wall_s_min": group["wall_s"].min(), "wall_s_median": group["wall_s"].median()}
        if (model, side) in ratio.index:
            found = ratio.loc[(model, side)]
            row |= {"over_d": found["median"], "lowest": found["min"], "highest": found["max"]}
        row["images_per_s"] = speed
        if machine:
            peak = machine["peak_gflops"]["bfloat16" if side == "lwnb-bf16" else "float32"]
            row["of_peak_%"] = 100 * 3 * 2 * machine["macs"][model] * speed / (peak * 1e9)
        row |= {"process_mib": group["memory_mib"].max(), "with_children_mib": group["tree_memory_mib"].max()}
        row |= {"top1_mean": top1.mean(), "top1_sd": top1.std(), "train_loss": group["train_loss"].mean()}
        rows.append(row)
    return pd.DataFrame(rows)


def equalities(compared: pd.DataFrame) -> pd.DataFrame:
    """What the accuracies of each network say about the equality of each side with (a)."""
    rows = []
    for model, group in compared.groupby("model", sort=False):
        top1 = {side: part["top1"].astype(float).to_numpy() for side, part in group.groupby("side", sort=False)}
        for side in (side for side in top1 if side != "script" and "script" in top1):
            verdict = equality(top1[side], top1["script"])
            difference = 100 * (top1[side].mean() - top1["script"].mean())
            rows.append(
                {"network": model, "side": f"({LETTERS[side]}) {side}", "points": difference, "verdict": verdict}
            )
    return pd.DataFrame(rows)


def equality(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Two one-sided Welch tests (Schuirmann 1987, by statsmodels) over seeds, margin `MARGIN`."""
    if min(len(ours), len(theirs)) < 2:
        return "equality not shown: one seed"
    if ours.std() == theirs.std() == 0:
        return "equality not shown: the seeds do not differ, so there is nothing to judge by"
    p = ttost_ind(ours, theirs, -MARGIN, MARGIN, usevar="unequal")[0]
    return f"equal within 1 point, p = {p:.3f}" if p < 0.05 else f"equality not shown, p = {p:.3f}"


def grids(jobs: pd.DataFrame) -> pd.DataFrame:
    """The grid's wall time against the sum of the same runs by (a), which the comparison holds."""
    grid, script = jobs[jobs["part"] == "grid"], jobs[(jobs["part"] == "compare") & (jobs["side"] == "script")]
    alone = script[script["seed"] < 2]
    row = {"runs": grid["runs"].iloc[0], "workers": grid["workers"].iloc[0], "grid_s_min": grid["wall_s"].min()}
    row |= {"grid_s_median": grid["wall_s"].median(), "runs_of_a": len(alone), "sum_of_a_s": alone["wall_s"].sum()}
    if row["runs_of_a"] == row["runs"]:
        row["a_over_grid"] = row["sum_of_a_s"] / row["grid_s_median"]
    return pd.DataFrame([row])


def growth(chosen: pd.DataFrame) -> pd.DataFrame:
    """One epoch by (a) and (d) at each size: the medians and their ratio."""
    by = ["model", "train_size", "image_size", "batch_size"]
    wall = chosen.pivot_table(index=by, columns="side", values="wall_s", aggfunc="median")
    speed = chosen.pivot_table(index=by, columns="side", values="images_per_s", aggfunc="median")
    table = wall.add_suffix("_s").join(speed.add_suffix("_images_per_s")).reset_index()
    if {"script", "lwnb"} <= set(wall):
        table["a_over_d"] = table["script_s"] / table["lwnb_s"]
    return table


def throughput(chosen: pd.DataFrame) -> pd.DataFrame:
    """Several runs by so many workers: whole seconds, seconds for one more run, and the gain of that over the first."""
    by = ["model", "workers", "threads"]
    table = chosen.pivot_table(index=by, columns="runs", values="wall_s", aggfunc="median")
    few, many = min(table), max(table)
    table["one_more_s"] = (table[many] - table[few]) / (many - few)
    table["gain"] = table["one_more_s"].iloc[0] / table["one_more_s"]
    return table.rename(columns={few: f"{few}_runs_s", many: f"{many}_runs_s"}).reset_index()


def geometric_mean(compared: pd.DataFrame) -> tuple[float, int]:
    """Geometric mean over networks of the median ratio of (a) to (d), and how many networks that is."""
    found = ratios(compared[compared["precision"] == "fp32"])
    medians = found[found["side"] == "script"].groupby("model")["ratio"].median()
    return (math.exp(np.log(medians).mean()) if len(medians) else math.nan), len(medians)


def last_line(compared: pd.DataFrame) -> str:
    mean, count = geometric_mean(compared)
    if not count:
        return "\nno geometric mean: it needs the sides script and lwnb of the part compare"
    return f"\ngeometric mean of {count} network{'s' * (count > 1)}, whole job, (a) / (d) fp32: {mean:.2f}x"
