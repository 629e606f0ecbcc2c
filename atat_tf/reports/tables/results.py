"""Computes a table's results from the ledgers of its runs alone.

The results are the dictionary that the table's JSON file holds. What was not
run is None everywhere.
"""

import pathlib
from typing import Any

import numpy as np

from atat_tf.evaluation import ledger
from atat_tf.evaluation.statistics import intervals
from atat_tf.reports.tables import catalogue
from atat_tf.reports.tables import records as table_records
from atat_tf.reports.tables import shift as shift_measurement
from atat_tf.runs import folder as run_folder

_PERCENT = 100.0


def collect(
    table: catalogue.Table,
    scale: catalogue.Scale,
    num_seeds: int,
    folder: str | pathlib.Path,
    reason: str = "",
) -> dict[str, Any]:
    """Returns the results of a table, from whatever has been run.

    Args:
      table, scale: what was run.
      num_seeds: seeds 0 to num_seeds − 1 are looked for.
      folder: of the scale, as `Plan.folder`.
      reason: why nothing could be run, "" where it could.

    Returns:
      {"table", "title", "scale", "data_set", "data", "reason", "columns",
      "lines": a dictionary for each row and batch-norm mode, "tests": the
      McNemar tests, "shifts": correlations, for the shift table}.
    """
    data_set = scale.data_set(table.data_set)
    runs = {
        (key, mode): _runs(folder, data_set, key, mode, num_seeds)
        for key in table.rows
        for mode in table.bn_modes
    }
    lines = [
        _line(table, key, mode, seeds) for (key, mode), seeds in runs.items()
    ]
    records = [run["record"] for seeds in runs.values() for run in seeds]
    return {
        "table": table.name,
        "title": table.title,
        "scale": scale.name,
        "data_set": data_set,
        "papers_data_set": table.data_set,
        "data": next((record["data"] for record in records), None),
        "reason": reason,
        "columns": list(table.columns),
        "reference": table.reference,
        "lines": lines,
        "tests": [] if table.shift else _tests(table, runs),
        "shifts": _shifts(table, runs) if table.shift else [],
    }


def _runs(folder, data_set, key, mode, num_seeds):
    """Returns what is there of a row, one dictionary for each seed with any."""
    runs = []
    for seed in range(num_seeds):
        workdir = table_records.folder_of(folder, data_set, key, seed)
        record = table_records.read(workdir, mode)
        if record is not None:
            stands = table_records.standing(workdir, mode)
            run = {"seed": seed, "workdir": workdir, "record": record}
            runs.append({**run, "stands": stands})
    return runs


def _line(table, key, mode, runs):
    paper = table.paper(key)
    configs = [
        run_folder.read_json(run["workdir"] / run_folder.CONFIG) for run in runs
    ]
    return {
        "row": key,
        "label": catalogue.ROWS[key].label,
        "bn_eval": mode,
        "cells": {c: _cell(c, runs) for c in table.columns},
        "paper": paper or None,
        "seeds": [run["seed"] for run in runs],
        "epochs": [config["num_epochs"] for config in configs],
        "weights": list(map(_weights, runs, configs)),
        "backbones": [_backbone(config) for config in configs],
        "training_seconds": [_training_seconds(run) for run in runs],
        "commits": [run["record"]["commit"] for run in runs],
        "hardware": [run["record"]["hardware"] for run in runs],
    }


def _cell(column, runs):
    """Returns a column's figures in percent, or None where no seed has any."""
    seeds, counts, images = [], [], set()
    for run in runs:
        stands = run["stands"].get(column)
        if stands is not None:
            seeds.append(run["seed"])
            counts.append(int(np.sum(stands)))
            images.add(len(stands))
    if not counts or len(images) > 1:
        return None
    (count,) = images
    percents = [_PERCENT * number / count for number in counts]
    mean, deviation = intervals.mean_and_deviation(percents)
    low, high = intervals.wilson(float(np.mean(counts)), count)
    return {
        "mean": mean,
        "deviation": deviation,
        "wilson": [_PERCENT * low, _PERCENT * high],
        "num_images": count,
        "seeds": seeds,
        "standing": counts,
        "percents": percents,
    }


def _tests(table, runs):
    """Returns McNemar's tests of the pairs of lines that a table asks about.

    The reference row against each other one, and each row's batch statistics
    against its frozen ones.
    """
    pairs = [
        ((table.reference, mode), (key, mode))
        for key, mode in runs
        if key != table.reference
    ]
    pairs += [
        ((key, mode), (key, "frozen")) for key, mode in runs if mode == "batch"
    ]
    return [
        test
        for first, second in pairs
        for column in table.columns
        for test in _tests_of(first, second, column, runs)
    ]


def _tests_of(first, second, column, runs):
    """Returns the tests of two lines in a column, one for each seed of both."""
    others = {run["seed"]: run["stands"] for run in runs[second]}
    tests = []
    for run in runs.get(first, ()):
        here = run["stands"].get(column)
        there = others.get(run["seed"], {}).get(column)
        if here is None or there is None or len(here) != len(there):
            continue
        only_first, only_second, p = intervals.mcnemar(here, there)
        tests.append(
            {
                "column": column,
                "first": first[0],
                "first_bn_eval": first[1],
                "second": second[0],
                "second_bn_eval": second[1],
                "seed": run["seed"],
                "num_images": len(here),
                "only_first": only_first,
                "only_second": only_second,
                "p": p,
            }
        )
    return tests


def _shifts(table, runs):
    """Returns how attention shifts go with verdicts, for each row and seed."""
    shifts = []
    for key in table.rows:
        for run in runs[key, "frozen"]:
            measured = shift_measurement.read(run["workdir"])
            if measured is not None and ledger.is_in(run["workdir"]):
                shifts.append(_shift(key, run, measured))
    return shifts


def _shift(key, run, measured):
    part = {"identity": measured["identity"]}
    attacked = table_records.lines(run["workdir"], part, measured["attack"])
    clean = table_records.lines(run["workdir"], part, "none")
    indices = measured["indices"]
    broken = np.array([attacked[i]["broken"] for i in indices], bool)
    # Of the clean image: what is close to the boundary breaks, whatever its
    # attention does. A shift that tells no more than this explains nothing.
    closeness = [-clean[i]["margin"] for i in indices]
    values = {
        "distance": measured["distance"],
        "shape_distance": measured["shape_distance"],
        "clean_margin": closeness,
    }
    return {
        "row": key,
        "label": catalogue.ROWS[key].label,
        "seed": run["seed"],
        "column": measured["column"],
        "num_images": len(indices),
        "num_broken": int(broken.sum()),
        "layer": measured["layer"],
        "mean_of_broken": _means(values, broken),
        "mean_of_standing": _means(values, ~broken),
        "correlations": {
            name: {
                **intervals.correlations(numbers, broken),
                "spearman_given_margin": intervals.partial_spearman(
                    numbers, broken, closeness
                ),
            }
            for name, numbers in values.items()
        },
    }


def _means(values, chosen):
    if not chosen.any():
        return dict.fromkeys(values)
    return {
        name: float(np.mean(np.asarray(numbers)[chosen]))
        for name, numbers in values.items()
    }


def _backbone(config):
    backbone = config["backbone"]
    return f"{backbone['name']} {backbone['depth']}-{backbone['width']}"


def _weights(run, config):
    """Returns the evaluated weights in words, None where nothing tells them."""
    # Runs of before have no such field.
    weights = config.get("evaluation", {}).get("weights", "best")
    return run_folder.kept_in_words(
        run_folder.read_metrics(run["workdir"]), weights
    )


def _training_seconds(run):
    rows = run_folder.read_metrics(run["workdir"])
    return sum(row["seconds"] for row in rows)
