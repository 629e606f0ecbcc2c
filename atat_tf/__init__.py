"""Adversarial robustness via attention transfer, for TensorFlow and Keras."""

import importlib.machinery
import importlib.util
import pathlib
import sys

__version__ = "0.1.0"

_HERE = pathlib.Path(__file__).resolve().parent


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
