"""Adversarial robustness via attention transfer, for TensorFlow and Keras."""

import pathlib

__version__ = "0.1.0"

# In a wheel the recipes and the serving code are `atat_tf.configs` and
# `atat_tf.serving`. In a checkout they lie beside this package.
_beside = pathlib.Path(__file__).resolve().parents[1]
if (_beside / "configs" / "base.py").is_file():
    __path__.append(str(_beside))
