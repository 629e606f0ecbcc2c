"""The columns of a table: from a name to the attacks that it stands for.

A column's accuracy is the share of images that withstand all of its attacks;
an attack is only run on images that withstood those before it.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import logging

from atat_tf.attacks import apgd, fab, linf, plugins, radii, square
from atat_tf.errors import InputError, expect, unknown

# AutoAttack's default (Croce & Hein 2020): 9 targets, 100 steps, 5,000 queries.
_TARGETS = 9
AUTOATTACK = ("autoattack", "standard")
_STANDARD = ("apgd_ce", "apgd_t", "fab_t", "square")
_TABLES = ("fgsm", "ifgsm20", "pgd7", "pgd10", "pgd20", "pgd20x10")


def column(
    name: str, epsilon: float, step_size: float, num_classes: int
) -> tuple[Any, ...]:
    """Returns the stepped attacks of a column, in the order they are run.

    Args:
      name: "clean", "autoattack" or "standard" (AutoAttack's standard
        version, under both names), one of its parts ("apgd_ce",
        "apgd_dlr", "apgd_t", "fab_t", "square"), with another number of steps
        as in "apgd_ce20" and in ℓ2 as in "apgd_ce_l2", or a name for
        `linf.from_name`; and with a radius of its own, as "pgd20@4/255", of
        which α is the same share as of `epsilon`.
      epsilon: ε, where the name gives none.
      step_size: α of FGSM's kin, for a radius of `epsilon`.
      num_classes: k, which limits the number of targets.

    Returns:
      A tuple, empty for "clean".

    Raises:
      InputError: the name is none of these; the known forms are listed.
    """
    base, at, radius = name.partition("@")
    if at:
        # Steps that stay as they are do not reach the edge of a larger ball.
        share = step_size / epsilon
        epsilon = radii.parsed(radius)
        step_size = share * epsilon
    if base == "clean":
        return ()
    if base in AUTOATTACK:
        parts = (
            column(part, epsilon, step_size, num_classes) for part in _STANDARD
        )
        return tuple(attack for part in parts for attack in part)
    if match := _PART.fullmatch(base):
        settings: dict[str, Any] = {"norm": "l2"} if match[3] else {}
        if match[2]:
            settings["num_steps"] = int(match[2])
        return PARTS[match[1]](epsilon, num_classes, **settings)
    try:
        return (linf.Steps(linf.from_name(base, epsilon, step_size)),)
    except InputError as error:
        if base.rstrip("0123456789x") in linf.ATTACKS:
            raise
        raise unknown(
            "an attack (any number of steps, of restarts as in pgd20x10, "
            "another radius as in pgd20@4/255)",
            name,
            ("clean", *AUTOATTACK, *PARTS, *_TABLES),
        ) from error


def is_built_in(name: str) -> bool:
    """Returns whether a name means a column whatever attacks are registered."""
    return name in ("clean", *AUTOATTACK) or bool(_PART.fullmatch(name))


def description(attack: Any) -> str:
    """Returns an attack with all of its parameters, as the ledger names it.

    Radii and steps are written as shares of 255 where they are such. Functions
    and classes have their `plugins.name`.
    """
    if isinstance(attack, linf.Steps):
        return description(attack.attack)
    fields = []
    for field in dataclasses.fields(attack):
        value = getattr(attack, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = description(value)
        elif callable(value):
            value = plugins.name(value)
        elif isinstance(value, float) and field.name in (
            "epsilon",
            "step_size",
        ):
            value = radii.written(value)
        fields.append(f"{field.name}={value}")
    return f"{plugins.name(type(attack))}({', '.join(fields)})"


def descriptions(attacks: Iterable[Any]) -> list[str]:
    """Returns the `description` of each attack."""
    return [description(attack) for attack in attacks]


def described(built: Mapping[str, Iterable]) -> set[str]:
    """Returns the descriptions of all attacks of columns, shared ones once."""
    return {
        name for attacks in built.values() for name in descriptions(attacks)
    }


def in_words(attack: linf.LinfAttack) -> str:
    """Returns an attack of FGSM's kin as a person would say it."""
    name, start = "I-FGSM", "the image itself"
    if attack.random_start:
        name, start = "PGD", "a random start"
    steps = f"{attack.num_steps} steps of {radii.written(attack.step_size)}"
    if attack.num_steps == 1:
        name, steps = "FGSM", f"one step of {radii.written(attack.step_size)}"
    return (
        f"{name}, {steps} from {start}, at most "
        f"{radii.written(attack.epsilon)} a pixel"
    )


def _apgd_ce(epsilon, num_classes, **settings):
    return (apgd.APGD(epsilon, loss="cross_entropy", **settings),)


def _apgd_dlr(epsilon, num_classes, **settings):
    attack = apgd.APGD(epsilon, loss="dlr", **settings)
    return (_with_loss_in_force(attack, num_classes),)


def _apgd_t(epsilon, num_classes, **settings):
    return tuple(
        _with_loss_in_force(
            apgd.APGD(epsilon, loss="targeted_dlr", target=target, **settings),
            num_classes,
        )
        for target in _targets(num_classes)
    )


def _fab_t(epsilon, num_classes, norm="linf", **settings):
    expect(norm == "linf", "fab_t in ℓ∞", norm=norm)
    return tuple(
        fab.FAB(epsilon, target=target, **settings)
        for target in _targets(num_classes)
    )


def _square(epsilon, num_classes, **settings):
    return (square.Square(epsilon, **settings),)


# {name: (epsilon, num_classes, norm, num_steps) -> stepped attacks}; norm and
# num_steps are given where the column's name says them.
PARTS: dict[str, Callable[..., tuple]] = {
    "apgd_ce": _apgd_ce,
    "apgd_dlr": _apgd_dlr,
    "apgd_t": _apgd_t,
    "fab_t": _fab_t,
    "square": _square,
}
_PART = re.compile(rf"({'|'.join(PARTS)})(\d{{1,6}})?(_l2)?")


def _targets(num_classes):
    return range(1, min(_TARGETS, num_classes - 1) + 1)


def _with_loss_in_force(attack, num_classes):
    """Returns the attack under the loss that so few classes leave it."""
    loss = attack.loss_in_force(num_classes)
    if loss != attack.loss and attack.target in (None, 1):
        logging.warning(
            "The loss is the margin in place of %s, which needs %d classes.",
            attack.loss,
            apgd.LOSSES[attack.loss],
        )
    return dataclasses.replace(attack, loss=loss)
