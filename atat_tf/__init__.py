"""Adversarial robustness via attention transfer, for TensorFlow and Keras.

  import atat_tf as atat
  atat.robust_accuracy(model, x, y)

The names are those of `atat_tf.api`, which is imported when one of them is
first asked for: neither this import nor a command's --help loads TensorFlow.
"""

import importlib
import importlib.machinery
import importlib.util
import pathlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atat_tf.api import *  # the names of __all__

__version__ = "0.2.0"

__all__ = [
    "ATAT",
    "TLA",
    "TRADES",
    "AdversarialTrainer",
    "AdversarialTraining",
    "Attention",
    "Checklist",
    "Data",
    "InputError",
    "LinfAttack",
    "LogitPairing",
    "Robustness",
    "RobustnessCurve",
    "Run",
    "Standard",
    "attack",
    "attention",
    "checklist",
    "fgsm",
    "fgsm_rs",
    "harden",
    "ifgsm",
    "load",
    "n_fgsm",
    "pgd",
    "register",
    "robust_accuracy",
    "trades",
]

_HERE = pathlib.Path(__file__).resolve().parent


def __getattr__(name: str) -> Any:
    """Returns a public name, with which all registered layers are loaded."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module("atat_tf.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Checkout:
    """Finds the recipes and the serving code beside this package.

    In a wheel they are inside it, as atat_tf.configs and atat_tf.serving. In a
    checkout they have these names too, and their own, configs and serving.
    """

    @staticmethod
    def find_spec(
        name: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns where one of the two packages is, None for other names."""
        if name not in ("atat_tf.configs", "atat_tf.serving"):
            return None
        folder = _HERE.parent / name.partition(".")[2]
        return importlib.util.spec_from_file_location(
            name,
            folder / "__init__.py",
            submodule_search_locations=[str(folder)],
        )


if not (_HERE / "configs").is_dir():
    sys.meta_path.append(_Checkout())
