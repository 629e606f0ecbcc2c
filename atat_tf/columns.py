"""The columns of a table: from a name to the attacks that it stands for.

A column's accuracy is the share of images that withstand all of its attacks;
an attack is only run on images that withstood those before it.
"""

import dataclasses
import re

from atat_tf import apgd, attacks, fab, radii, square
from atat_tf.errors import InputError, expect, unknown

# AutoAttack's default (Croce & Hein 2020): 9 targets, 100 steps, 5,000 queries.
_TARGETS = 9
_STANDARD = ("apgd_ce", "apgd_t", "fab_t", "square")
_FORMS = (
    "clean",
    "standard",
    "apgd_ce",
    "apgd_dlr",
    "apgd_t",
    "fab_t",
    "square",
    "fgsm",
    "ifgsm20",
    "pgd7",
    "pgd10",
    "pgd20",
    "pgd20x10",
)


def column(name, epsilon, step_size, num_classes):
    """Returns the stepped attacks of a column, in the order they are run.

    Args:
      name: "clean", "standard" (AutoAttack), one of its parts ("apgd_ce",
        "apgd_dlr", "apgd_t", "fab_t", "square"), with another number of steps
        as in "apgd_ce20" and in ℓ2 as in "apgd_ce_l2", or a name for
        `attacks.from_name`; and with a radius of its own, as "pgd20@4/255".
      epsilon: ε, where the name gives none.
      step_size: α of FGSM's kin.
      num_classes: k, which limits the number of targets.

    Returns:
      A tuple, empty for "clean".

    Raises:
      InputError: the name is none of these; the known forms are listed.
    """
    base, at, radius = name.partition("@")
    if at:
        epsilon = radii.parsed(radius)
    if base == "clean":
        return ()
    if base == "standard":
        parts = (
            column(part, epsilon, step_size, num_classes) for part in _STANDARD
        )
        return tuple(attack for part in parts for attack in part)
    match = re.fullmatch(
        r"(apgd_ce|apgd_dlr|apgd_t|fab_t|square)(\d+)?(_l2)?", base
    )
    if match:
        steps = int(match[2]) if match[2] else None
        norm = "l2" if match[3] else "linf"
        return _part(match[1], epsilon, steps, norm, num_classes)
    try:
        return (attacks.Steps(attacks.from_name(base, epsilon, step_size)),)
    except InputError as error:
        if base.rstrip("0123456789x") in attacks.ATTACKS:
            raise
        raise unknown(
            "an attack (any number of steps, of restarts as in pgd20x10, "
            "another radius as in pgd20@4/255)",
            name,
            _FORMS,
        ) from error


def description(attack):
    """Returns an attack with all of its parameters, as the ledger names it.

    Radii and steps are written as shares of 255 where they are such.
    """
    if isinstance(attack, attacks.Steps):
        return description(attack.attack)
    fields = []
    for field in dataclasses.fields(attack):
        value = getattr(attack, field.name)
        if callable(value):
            value = value.__name__
        elif isinstance(value, float) and field.name in (
            "epsilon",
            "step_size",
        ):
            value = radii.written(value)
        fields.append(f"{field.name}={value}")
    return f"{type(attack).__name__}({', '.join(fields)})"


def _part(name, epsilon, steps, norm, num_classes):
    expect(
        norm == "linf" or not name.startswith("fab"),
        "fab_t in ℓ∞",
        norm=norm,
    )
    given = {"num_steps": steps} if steps else {}
    if name == "square":
        return (square.Square(epsilon, norm=norm, **given),)
    if name in ("apgd_ce", "apgd_dlr"):
        loss = {"apgd_ce": "cross_entropy", "apgd_dlr": "dlr"}[name]
        return (apgd.APGD(epsilon, norm=norm, loss=loss, **given),)
    targets = range(1, min(_TARGETS, num_classes - 1) + 1)
    if name == "fab_t":
        return tuple(fab.FAB(epsilon, target=t, **given) for t in targets)
    return tuple(
        apgd.APGD(epsilon, norm=norm, loss="targeted_dlr", target=t, **given)
        for t in targets
    )
