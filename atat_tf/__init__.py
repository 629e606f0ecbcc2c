"""Adversarial robustness via attention transfer (ATAT) for TensorFlow/Keras."""

__version__ = "0.1.0"
