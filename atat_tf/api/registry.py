"""Names of one's own for attacks, defenses, backbones and data sets."""

import dataclasses
import functools
import re
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar

from atat_tf.api.data import Data
from atat_tf.attacks import columns, for_training, linf
from atat_tf.data import datasets
from atat_tf.defenses import atat
from atat_tf.errors import expect, registered, with_checked_types
from atat_tf.runs import build

_Registered = TypeVar("_Registered", bound=Callable[..., Any])

_REGISTRIES: dict[str, tuple[MutableMapping[str, Any], ...]] = {
    "attack": (linf.ATTACKS, for_training.TRAINING_ATTACKS),
    "defense": (atat.DEFENSES,),
    "backbone": (build.BACKBONES,),
    "dataset": (datasets.REGISTERED,),
}


@with_checked_types
def register(kind: str, name: str) -> Callable[[_Registered], _Registered]:
    """Returns a decorator that makes a name known everywhere.

    Recipes, flags and the functions of this package then take the name. The
    commands import a module that registers some with --plugin=MODULE.

    Example:
      >>> @atat.register("attack", "rfgsm")
      ... def rfgsm(epsilon):
      ...     return atat.LinfAttack(epsilon, 1.25 * epsilon, 1)
      >>> found = atat.robust_accuracy(model, x, y, "rfgsm")
      >>> list(found.accuracy)
      ['rfgsm']

    Args:
      kind: what the decorated function or class is:
        "attack": (epsilon[, step_size, num_steps, restarts]) -> LinfAttack;
        "defense": a frozen dataclass, see `objective.Defense`;
        "backbone": a function of the arguments of `wide_resnet`; weight decay
        and synchronized batch norm are seen to, whatever it makes of theirs;
        "dataset": a function without arguments -> Data, called once.
      name: small letters and "_", for other kinds digits as well.

    Returns:
      A decorator, which returns what it is given.

    Raises:
      InputError: another kind, a name that is taken, or no such object.
    """
    registries = registered("a kind to register", kind, _REGISTRIES)
    pattern = "[a-z_]+" if kind == "attack" else "[a-z][a-z0-9_]*"
    expect(
        re.fullmatch(pattern, name),
        "a name of small letters and _ (an attack's number is its steps)",
        name=name,
    )
    taken = any(name in registry for registry in registries)
    taken |= kind == "dataset" and name in datasets.SPECS
    taken |= kind == "attack" and columns.is_built_in(name)
    expect(not taken, f"a name that no {kind} has", name=name)

    def decorate(given: _Registered) -> _Registered:
        expect(callable(given), f"a function or class as the {kind}", got=given)
        entry: Any = given
        if kind == "defense":
            expect(
                dataclasses.is_dataclass(given)
                and hasattr(given, "needs_attack"),
                "a dataclass with needs_attack, needs_teacher and layers",
                defense=given,
            )
        if kind == "dataset":
            entry = functools.cache(lambda: _dataset(given, name))
        for registry in registries:
            registry[name] = entry
        return given

    return decorate


def _dataset(make, name):
    data = make()
    expect(
        isinstance(data, Data),
        f"atat.Data of the data set {name!r}",
        received=type(data),
    )
    return data.dataset(name)
