"""One evaluation divided among processes, and put together again.

Shard i of k has the images i, i + k, i + 2 k and so on. Its verdicts are in a
ledger of its own, RUN/shards/I-of-K, since files shared between machines are no
place to append to together. `merge` takes them into the run's ledger, from
which the figures are then computed as those of one process are.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from atat_tf.attacks import columns
from atat_tf.errors import InputError, expect
from atat_tf.evaluation import evaluate_run, ledger, opening, sharding
from atat_tf.evaluation.run import Run
from atat_tf.runs import build
from atat_tf.runs import folder as run_folder


def evaluate(
    workdir: run_folder.Path,
    shard: sharding.Shard,
    attacks: Sequence[str] | None = None,
    num_images: int | None = None,
    weights: str | None = None,
    dataset_name: str | None = None,
    data_dir: run_folder.Path | None = None,
    seed: int | None = None,
    split: str | None = None,
) -> pathlib.Path:
    """Attacks the images of one shard; returns the folder of its ledger.

    Called again, it goes on where it was.

    Args:
      workdir: the run folder, to which nothing but the shard's is written.
      shard: sharding.Shard.
      attacks, num_images, weights, dataset_name, data_dir, seed, split: as for
        `evaluate_run.evaluate_run`.

    Raises:
      InputError: bad arguments, no run there, or no image in the shard.
    """
    config = Run(workdir).config
    build.expect_radii(attacks or ())
    names = [*build.build_columns(config, attacks)]
    settings: dict[str, Any] = {
        "num_images": num_images,
        "weights": weights or config.evaluation.weights,
        "dataset_name": dataset_name,
        "seed": seed,
        "split": split or config.evaluation.split,
    }
    folder = shard.folder(workdir)
    opened = opening.open_run(
        workdir, **settings, data_dir=data_dir, ledger_folder=folder
    )
    count = len(opened.split)
    expect(
        shard.count <= count,
        "no more shards than images",
        shard=str(shard),
        num_images=count,
    )
    opened.attacker.expect_judgeable(opened.split.images)
    built = opened.columns(names)
    evaluate_run.expect_led(opened, built)
    folder.mkdir(parents=True, exist_ok=True)
    indices = np.arange(shard.index, count, shard.count)
    for name, of_one in built.items():
        if not _is_decided(opened, of_one, indices):
            evaluate_run.standing_of(opened, name, of_one, indices)
    settings |= {"num_images": count, "seed": opened.seed, "attacks": names}
    run_folder.write_json(
        folder / sharding.FILE,
        {
            "settings": settings,
            "identity": opened.ledger.identity,
            "commit": run_folder.commit(),
        },
    )
    return folder


def merge(
    workdir: run_folder.Path, data_dir: run_folder.Path | None = None
) -> dict:
    """Puts the shards of a run together, and writes results.json.

    Args:
      workdir: the run folder, with all of the shards.
      data_dir: of tensorflow-datasets.

    Returns:
      What `evaluate_run.evaluate_run` returns: the same as of one process.

    Raises:
      InputError: a shard is missing or not done, or its ledger has lost
        verdicts, or they are of different settings, weights, data or commits.
    """
    shards = sharding.finished(workdir)
    told = _common(workdir, shards)
    settings = dict(told["settings"])
    names = settings.pop("attacks")
    opened = opening.open_run(workdir, **settings, data_dir=data_dir)
    _expect_own(told, opened)
    built = opened.columns(names)
    attacks = {a: None for of_one in built.values() for a in of_one}
    parts = [
        ledger.Ledger(
            shard.folder(workdir) / ledger.FILE, opened.ledger.identity
        )
        for shard in shards
    ]
    _expect_complete(opened, built, shards, parts)
    for description in (ledger.CLEAN, *map(columns.description, attacks)):
        known = opened.ledger.verdicts(description)
        lines: dict[int, dict] = {}
        for part in parts:
            lines |= part.verdicts(description)
        missing = [lines[index] for index in sorted({*lines} - {*known})]
        if missing:
            opened.ledger.append(description, missing)
    return evaluate_run.evaluate_opened(opened, names)


def _is_decided(opened, attacks, indices):
    """Returns whether the ledger has what decides all of some images."""
    descriptions = columns.descriptions(attacks)
    return all(
        opened.ledger.deciding(descriptions, index) is not None
        for index in indices.tolist()
    )


def _read(path):
    """Returns what the file of a shard says."""
    told = run_folder.read_json(path, {"settings", "identity", "commit"})
    settings, identity = told["settings"], told["identity"]
    match settings:
        case {
            "num_images": int(),
            "weights": str(),
            "dataset_name": None | str(),
            "seed": int(),
            "split": str(),
            "attacks": [*attacks],
            **others,
        }:
            are_names = all(isinstance(name, str) for name in attacks)
            is_whole = are_names and not others
        case _:
            is_whole = False
    expect(
        is_whole and isinstance(identity, dict),
        f"a whole {sharding.FILE} (remove it, and evaluate the shard again: "
        "its ledger goes on)",
        path=str(path),
    )
    return told


def _common(workdir, shards):
    """Returns what the files of all shards say."""
    first, *others = (
        _read(shard.folder(workdir) / sharding.FILE) for shard in shards
    )
    for shard, other in zip(shards[1:], others, strict=True):
        differing = _differences(first, other)
        if differing:
            raise InputError(
                "Expected shards of the same settings, weights, data and "
                f"commit. Received: shard {shard} beside {shards[0]} with "
                f"{'; '.join(differing)}."
            )
    return first


def _expect_own(told, opened):
    """Raises InputError unless shards are of this run and this commit."""
    here = {
        **told,
        "identity": opened.ledger.identity,
        "commit": run_folder.commit(),
    }
    differing = _differences(here, told)
    if differing:
        raise InputError(
            f"Expected shards of {opened.run.folder} as it is, by this commit. "
            f"Received: {'; '.join(differing)}."
        )


def _expect_complete(opened, built, shards, parts):
    """Raises InputError where a shard's ledger has lost verdicts."""
    described = [columns.descriptions(of_one) for of_one in built.values()]
    lost = {
        str(shards[index % len(shards)])
        for descriptions in described
        for index in range(len(opened.split))
        if not any(
            lines.deciding(descriptions, index)
            for lines in (parts[index % len(shards)], opened.ledger)
        )
    }
    expect(
        not lost,
        f"whole ledgers in {opened.run.folder / sharding.FOLDER}: the same "
        "command evaluates again what a shard has lost",
        lost=sorted(lost),
    )


def _differences(here, there):
    """Returns "name=value, not value" for each field that differs, once."""
    pairs = [
        (here["settings"], there["settings"]),
        (here["identity"], there["identity"]),
        ({"commit": here["commit"]}, {"commit": there["commit"]}),
    ]
    differing = {
        f"{name}={its.get(name)!r}, not {mine.get(name)!r}": None
        for mine, its in pairs
        for name in sorted({*mine, *its})
        if mine.get(name) != its.get(name)
    }
    return [*differing]
