"""The public names of `atat_tf`, which imports this package when asked.

Every layer that a saved model may have is registered by this import.
"""

from atat_tf.api.robustness import (
    Robustness,
    RobustnessCurve,
    attack,
    robust_accuracy,
)
from atat_tf.models import layers

__all__ = [
    "Robustness",
    "RobustnessCurve",
    "attack",
    "layers",
    "robust_accuracy",
]
