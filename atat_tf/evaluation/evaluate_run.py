"""Evaluation of a run folder: its ledger, and results.json made from it."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from atat_tf.attacks import columns, stepped
from atat_tf.data import datasets
from atat_tf.errors import InputError, expect, with_checked_types
from atat_tf.evaluation import figures, opening, verdicts
from atat_tf.evaluation.outcome import Outcome
from atat_tf.evaluation.run import Run
from atat_tf.evaluation.statistics import estimate
from atat_tf.models import judging
from atat_tf.runs import build, naming, terminal
from atat_tf.runs import folder as run_folder

# Candidates that rounding may refute in any evaluation.
_FEW = 9


@with_checked_types
def evaluate_run(
    workdir: run_folder.Path,
    attacks: Sequence[str] | None = None,
    num_images: int | None = None,
    bn_eval: str = "frozen",
    weights: str | None = None,
    dataset_name: str | None = None,
    data_dir: run_folder.Path | None = None,
    dataset: datasets.Dataset | None = None,
    seed: int | None = None,
    save_adversarials: run_folder.Path | None = None,
    split: str | None = None,
    precision: float | None = None,
) -> dict:
    """Evaluates a run and writes results.json, beside the columns it has.

    Of the same weights, figures of more images are left there, and those of
    test images beside validation images.

    Args:
      workdir: the run folder.
      attacks: names of columns, see `columns.column`; None for the data set's
        own.
      num_images, bn_eval, dataset_name, data_dir, dataset, seed: as for
        `opening.open_run`.
      weights, split: as for `opening.open_run`; None for the config's own.
      save_adversarials: .npz file for the candidates of every attack; nothing
        is then taken from the ledger.
      precision: half the width of a 95 % interval, as 0.01 for a point: columns
        of several attacks, as AutoAttack, are estimated from a sample of the
        images, see `estimate`. None for all images.

    Returns:
      The dictionary written to results.json, or what would have been.

    Raises:
      InputError: bad arguments, or no run there.
    """
    config = Run(workdir).config
    build.expect_radii(attacks or ())
    _expect_estimates(build.build_columns(config, attacks), precision, bn_eval)
    _expect_place(save_adversarials)
    opened = opening.open_run(
        workdir,
        num_images,
        bn_eval,
        weights,
        dataset_name,
        data_dir,
        dataset,
        seed,
        split=split or config.evaluation.split,
    )
    return evaluate_opened(opened, attacks, save_adversarials, precision)


def evaluate_opened(
    opened: opening.OpenRun,
    attacks: Sequence[str] | None,
    save_adversarials: run_folder.Path | None = None,
    precision: float | None = None,
) -> dict:
    """Evaluates a run that is open, as `evaluate_run` does.

    Args:
      opened: OpenRun.
      attacks, save_adversarials, precision: as for `evaluate_run`.

    Returns:
      As `evaluate_run`.

    Raises:
      InputError: no attack can judge the classifier.
    """
    config, attacker = opened.config, opened.attacker
    if attacker.is_frozen:
        attacker.expect_judgeable(opened.split.images)
    built = opened.columns(attacks)
    expect_led(opened, built)
    adversarials: dict[str, dict[int, np.ndarray]] = {}

    def keep(description, indices, outcome):
        kept = adversarials.setdefault(description, {})
        kept.update(zip(indices.tolist(), outcome.adversarial, strict=True))

    sampled = _estimated_columns(built, precision)
    unsampled = {name: built[name] for name in built if name not in sampled}
    stands = standing(
        opened, unsampled, "evaluating", keep if save_adversarials else None
    )
    estimates = {}
    if precision is not None:
        for name, of_one in sampled.items():
            found = estimated(opened, name, of_one, precision)
            if found.is_whole:  # the ledger has all of its lines now
                stands |= standing(opened, {name: of_one}, "counting")
            else:
                estimates[name] = {
                    **dataclasses.asdict(found),
                    "attacks": columns.descriptions(of_one),
                }
    whole = {name: built[name] for name in built if name in stands}
    if save_adversarials:
        _save(save_adversarials, built, opened.split, adversarials)
    results = {
        "dataset": opened.dataset.name,
        "data": opened.dataset.provenance,
        "method": naming.method(config),
        "num_images": len(opened.split),
        "bn_eval": opened.ledger.identity["bn_eval"],
        "seed": opened.seed,
        "commit": run_folder.commit(),
        "accuracy": {name: float(np.mean(s)) for name, s in stands.items()},
        "worst_case": figures.worst_case(config, built, stands),
        "refuted": opened.ledger.refuted(
            columns.described(built), len(opened.split)
        ),
        "weights": opened.weights,
        "weights_digest": opened.ledger.identity["weights"],
        "batch_size": attacker.batch_size,
        "attacks": {n: columns.descriptions(whole[n]) for n in whole},
    }
    if estimates:
        results["estimates"] = estimates
    if opened.split_name != "test":
        results["split"] = opened.split_name
    return figures.kept(opened, results)


def expect_led(opened: opening.OpenRun, built: Mapping[str, Sequence]) -> None:
    """Raises InputError for columns that nothing leads to adversarial images.

    Args:
      opened: OpenRun.
      built: {column: stepped attacks}. Where the logits have no gradient to the
        images, or none to follow, one of them at least has to be led by the
        scores alone.
    """
    by_gradient = [
        name
        for name, attacks in built.items()
        if attacks and all(map(stepped.needs_gradient, attacks))
    ]
    if not by_gradient:
        return
    if not opened.is_served and judging.has_gradient(
        opened.classifier, opened.dataset.spec.image_shape
    ):
        judging.expect_gradients(opened.attacker.logits_fn, opened.split.images)
        return
    raise InputError(
        "Expected clean, square or autoattack for logits without a gradient "
        "to the images (a rounding, a cast to integers or a stop_gradient "
        f"cuts it). Received: attacks={by_gradient!r}."
    )


def standing(
    opened: opening.OpenRun,
    built: Mapping[str, Sequence],
    doing: str,
    keep: Callable[[str, np.ndarray, Outcome], None] | None = None,
    expects_confirmed: bool = True,
) -> dict[str, np.ndarray]:
    """Returns which images withstand each column, running what is missing.

    Args:
      opened: OpenRun.
      built: {column: stepped attacks}.
      doing: what the progress bar says before the column's name, or "".
      keep: as for `verdicts.Verdicts`.
      expects_confirmed: whether the figures are to be believed.

    Returns:
      {column: bool [n]}.

    Raises:
      InputError: most of what was found in a batch does not hold alone, so
        that what stands means nothing.
    """
    passes = sum(
        1 + sum(stepped.passes(attack) for attack in attacks)
        for attacks in built.values()
    )
    if doing and keep is None and _has_all(opened, built):
        doing = "counting"
    stands = {}
    with terminal.bar(doing, passes * len(opened.split)) as advance:
        for name, attacks in built.items():

            def ended(count, name=name):
                advance(f"{doing} {name}".strip(), units=count)

            ended(0)
            stands[name] = _judge(opened, ended, keep).standing(attacks)
    if expects_confirmed:
        _expect_confirmed(opened, built)
    return stands


def _has_all(opened, built):
    """Returns whether the ledger has all verdicts of columns already."""
    count = len(opened.split)
    return all(
        opened.ledger.standing(columns.descriptions(attacks), count) is not None
        for attacks in built.values()
    )


def _expect_confirmed(opened, built):
    """Raises InputError where most candidates of columns were refuted."""
    asked = columns.described(built), len(opened.split)
    refuted = opened.ledger.refuted(*asked)
    confirmed = opened.ledger.broken(*asked)
    expect(
        refuted <= max(confirmed, _FEW),
        "adversarial images that are misclassified alone as they were in their "
        "batch: this classifier answers otherwise in another batch, and what "
        "stands means nothing (atat check says more)",
        refuted=refuted,
        confirmed=confirmed,
    )


def standing_of(
    opened: opening.OpenRun, name: str, attacks: Sequence, indices: np.ndarray
) -> np.ndarray:
    """Returns which of some images withstand a column, bool [k].

    Args:
      opened: OpenRun, with frozen statistics.
      name: the column's.
      attacks: its stepped attacks.
      indices: integers [k], the images that are attacked.
    """
    if not len(indices):
        return np.zeros(0, bool)
    passes = 1 + sum(stepped.passes(attack) for attack in attacks)
    doing = f"{name}, {len(indices):,} images"
    with terminal.bar(doing, passes * len(indices)) as advance:
        judge = _judge(opened, lambda count: advance(units=count))
        return judge.standing_of(attacks, indices)


def _judge(opened, advance, keep=None):
    return verdicts.Verdicts(
        opened.attacker,
        opened.split,
        opened.ledger,
        opened.seed,
        advance,
        keep,
    )


def estimated(
    opened: opening.OpenRun, name: str, attacks: Sequence, precision: float
) -> estimate.Estimate:
    """Returns the accuracy under a column from a sample of the images.

    Of all images where the ledger has all of their verdicts already.

    Args:
      opened: OpenRun.
      name: the column's.
      attacks: its stepped attacks, two at least.
      precision: as for `evaluate_run`.
    """
    known = _whole(opened, attacks)
    if known:
        terminal.note(
            f"{name}: the ledger has the verdicts on all images, and the "
            "figure is of all images."
        )
        return known
    first = standing(opened, {name: attacks[:1]}, "all images, first attack")
    found = estimate.estimate(
        first[name],
        opened.ledger.margins(
            columns.description(attacks[0]), len(opened.split)
        ),
        lambda indices: standing_of(opened, name, attacks, indices),
        precision,
        opened.seed,
    )
    if not found.num_standing:
        terminal.note(f"{name}: its first attack broke all images.")
    elif found.is_whole:
        terminal.note(
            f"{name}: so small a precision saves nothing. All "
            f"{found.num_standing:,} images that stood after its first "
            "attack met the others, and the figure is of all images."
        )
    _expect_confirmed(opened, {name: attacks})
    return found


def _whole(opened, attacks):
    """Returns the Estimate of a ledger with all verdicts, or None."""
    descriptions, count = columns.descriptions(attacks), len(opened.split)
    first, stands = (
        opened.ledger.standing(of, count)
        for of in (descriptions[:1], descriptions)
    )
    if first is None or stands is None:
        return None
    share, standing = float(np.mean(stands)), int(first.sum())
    broken = standing - int(stands.sum())
    return estimate.Estimate(
        share, share, share, count, standing, standing, broken
    )


def _estimated_columns(built, precision):
    """Returns the columns that are estimated, of several attacks."""
    if precision is None:
        return {}
    return {name: of for name, of in built.items() if len(of) > 1}


def expect_several(built: Mapping[str, Sequence]) -> None:
    """Raises InputError where no column has several attacks to be sampled."""
    expect(
        any(len(of_one) > 1 for of_one in built.values()),
        "an attack of several parts, as autoattack, where a precision is asked "
        "for",
        attacks=[*built],
    )


def _expect_estimates(built, precision, bn_eval):
    """Raises InputError where there is nothing that could be estimated."""
    if precision is None:
        return
    estimate.expect_precision(precision)
    expect_several(built)
    expect(
        bn_eval == "frozen",
        "bn_eval=frozen with a precision: of a batch there is no sample",
        bn_eval=bn_eval,
    )


def _expect_place(path):
    """Raises InputError unless a file can be written at `path`, or no path."""
    place = pathlib.Path(path or ".npz")
    expect(
        place.parent.is_dir() and place.name.endswith(".npz"),
        "an .npz file in an existing folder",
        save_adversarials=path,
    )


def _save(path, built, split, adversarials):
    """Writes each attack's candidates, with the images' indices."""
    entries = {"labels": split.labels}
    for name, attacks in built.items():
        for number, attack in enumerate(attacks):
            # No entry: nobody was left to attack.
            kept = adversarials.get(columns.description(attack), {})
            key = f"{name}/{number}"
            entries[f"{key}/indices"] = np.array(sorted(kept))
            entries[f"{key}/images"] = np.array([kept[i] for i in sorted(kept)])
    with run_folder.replacing(path) as temporary:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **entries)
