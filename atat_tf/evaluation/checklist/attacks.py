"""What the checklist runs: the attacks behind each of its points."""

from collections.abc import Iterable

import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import (
    baselines,
    columns,
    linf,
    on_attention,
    square,
    stepped,
)
from atat_tf.errors import InputError
from atat_tf.evaluation.figures import in_threat_model
from atat_tf.evaluation.opening import OpenRun
from atat_tf.models import classifiers
from atat_tf.runs import build
from atat_tf.runs import config as run_config

STEPS = 20
RESTARTS = 10
UNBOUNDED_STEPS = 100
NOISE_TRIES = 100
# AutoAttack has 5,000; what white-box attacks miss shows early.
SQUARE_QUERIES = 1000
STEP_FACTORS = (0.25, 0.5, 2.0, 4.0)
RADIUS_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
# Of the attention's distance beside the cross-entropy; ATAT trains with 1.
ATTENTION_WEIGHTS = (-10.0, -1.0, -0.1, 0.1, 1.0, 10.0)

NO_TWIN = (
    "no undefended network of the same data to compare with (a teacher). "
    "Without one, scores that are rounded behind the back of their gradient, "
    "and gradients that are scaled away, can pass"
)
NO_GRADIENT = "a server answers scores without a gradient"


def negative_margin(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns max_{j≠y} z_j − z_y, [b]: the margin loss of Carlini & Wagner."""
    return -losses.margin(labels, logits)


def groups(
    opened: OpenRun,
    teacher: OpenRun | None = None,
    reported: Iterable[str] = (),
) -> tuple[dict[str, dict], dict[str, str]]:
    """Returns the columns of each point, and why points have none.

    Args:
      opened: the run.
      teacher: its undefended twin, or None.
      reported: names of the columns whose worst case is the run's headline;
        where these are no attacks, PGD-20 stands for them.

    Returns:
      {group: {column: stepped attacks}}, as `points.from_standing`
      reads them, and {group: why there is none}.
    """
    ball = opened.config.attack.epsilon, opened.config.attack.step_size
    classes = opened.dataset.spec.num_classes
    pgd = columns.column(f"pgd{STEPS}", *ball, classes)
    built = _variants(*ball)
    headline = _headline(opened, reported) or pgd
    absent = {}
    try:
        adapted = _adapted(opened)
        built["attention"] = {"adapted attacks": headline + adapted}
    except InputError as error:
        adapted, absent["attention"] = (), str(error)
    by_gradient = (*headline, *adapted, *pgd)
    for name in ("steps", "restarts", "step_sizes", "margin_loss"):
        for column in built[name].values():
            by_gradient += column
    white_box = tuple(
        attack
        for attack in dict.fromkeys(by_gradient)
        if stepped.needs_gradient(attack)
    )
    by_queries = _by_queries(opened)
    built["square"] = {f"square{SQUARE_QUERIES}": (*white_box, by_queries)}
    if teacher:
        built["transfer"] = {"transfer": (_transfer(teacher, *ball),)}
    else:
        absent["transfer"] = NO_TWIN
    reference = {
        "clean": (),
        f"pgd{STEPS}": pgd,
        "headline": headline,
        "white box": white_box,
    }
    # Last: all of it has been run by then.
    return {**built, "reference": reference}, absent


def on_twin(opened: OpenRun, groups: dict[str, dict]) -> dict[str, tuple]:
    """Returns the columns of the undefended twin, as `points` reads them.

    PGD as on the run; APGD, whose steps are its own; and PGD without a bound.
    The last two say why the first leaves images.

    Args:
      opened: the run.
      groups: from `groups`.
    """
    attack, spec = opened.config.attack, opened.dataset.spec
    apgd = columns.column(
        "apgd_ce", attack.epsilon, attack.step_size, spec.num_classes
    )
    return {
        f"pgd{STEPS}": groups["reference"][f"pgd{STEPS}"],
        "apgd_ce": apgd,
        **groups["unbounded"],
    }


def query_groups(opened: OpenRun) -> dict[str, dict]:
    """Returns the columns of a classifier without gradient, as `groups`."""
    return {"square": {f"square{SQUARE_QUERIES}": (_by_queries(opened),)}}


def _by_queries(opened):
    """Returns Square of few queries.

    They end with small squares only if the schedule is theirs.
    """
    return square.Square(
        opened.config.attack.epsilon,
        num_steps=SQUARE_QUERIES,
        schedule=SQUARE_QUERIES,
    )


def _variants(epsilon, step_size):
    """Returns the groups that hold PGD against its own kin."""

    def pgd(radius=epsilon, step=step_size, num_steps=STEPS, **fields):
        attack = linf.LinfAttack(radius, step, num_steps, **fields)
        return (linf.Steps(attack),)

    radii = [factor * epsilon for factor in RADIUS_FACTORS]
    sizes = [factor * step_size for factor in STEP_FACTORS]
    ratio = step_size / epsilon
    return {
        "single_step": {"fgsm": (linf.Steps(linf.fgsm(epsilon)),)},
        "steps": {f"pgd{2 * STEPS}": pgd(num_steps=2 * STEPS)},
        "restarts": {f"pgd{STEPS}x{RESTARTS}": pgd(restarts=RESTARTS)},
        "step_sizes": {f"α = {_in_255ths(s)}": pgd(step=s) for s in sizes},
        "margin_loss": {"margin loss": pgd(loss_fn=negative_margin)},
        "radii": {
            f"ε = {_in_255ths(r)}": pgd(r, r * ratio) for r in radii if r <= 1
        },
        # The whole box, from the image itself: from a random start the box is
        # noise, with which an attack has less to do than with an image. Half
        # of the steps cross it, however small the run's own are.
        "unbounded": {
            f"ε = 1, {UNBOUNDED_STEPS} steps": pgd(
                1.0,
                max(4 * step_size, 2 / UNBOUNDED_STEPS),
                UNBOUNDED_STEPS,
                random_start=False,
            )
        },
        "noise": {
            f"{NOISE_TRIES} tries": (baselines.Noise(epsilon, NOISE_TRIES),)
        },
    }


def _headline(opened, reported):
    """Returns the attacks of the reported columns inside the threat model."""
    if not reported:
        return ()
    built = opened.known_columns(reported)
    within = (
        attack
        for column in built.values()
        if in_threat_model(opened.config, column)
        for attack in column
    )
    return tuple(dict.fromkeys(within))


def _adapted(opened):
    """Returns the attacks on the attention, one a weight.

    Raises:
      InputError: the classifier has no layer with a spatial map.
    """
    # Where the defense trains attention, otherwise where it would be shown.
    layers = build.defense_layers(opened.config)
    if not layers:
        layers = (classifiers.attention_layer(opened.classifier),)
    maps = on_attention.logits_and_maps_function(
        opened.classifier, layers, run_config.score(opened.config)
    )
    ball = opened.config.attack.epsilon, opened.config.attack.step_size
    return tuple(
        on_attention.AttentionAttack(*ball, STEPS, weight, maps)
        for weight in ATTENTION_WEIGHTS
    )


def _transfer(teacher, epsilon, step_size):
    def source(images):
        return teacher.attacker.logits_fn(images)

    digest = teacher.ledger.identity["weights"]
    source.__name__ = f"classifier_{digest.removeprefix('sha256:')[:12]}"
    return baselines.Transfer(epsilon, step_size, STEPS, source)


def _in_255ths(value):
    return f"{255 * value:.3g}/255"
