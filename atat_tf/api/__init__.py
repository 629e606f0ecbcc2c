"""The public names of `atat_tf`, which imports this package when asked.

Every layer that a saved model may have is registered by this import.
"""

from atat_tf.api.attended import Attention, attention
from atat_tf.api.checking import Checklist, checklist
from atat_tf.api.data import Data
from atat_tf.api.hardening import harden
from atat_tf.api.loaded import Run, load
from atat_tf.api.registry import register
from atat_tf.api.results import Robustness, RobustnessCurve
from atat_tf.api.robustness import attack, robust_accuracy
from atat_tf.attacks.for_training import fgsm_rs, n_fgsm, trades
from atat_tf.attacks.linf import LinfAttack, fgsm, ifgsm, pgd
from atat_tf.defenses.atat import (
    ATAT,
    AdversarialTraining,
    LogitPairing,
    Standard,
)
from atat_tf.defenses.compared import TLA, TRADES
from atat_tf.errors import InputError
from atat_tf.models import layers
from atat_tf.training.trainer import AdversarialTrainer

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
    "layers",
    "load",
    "n_fgsm",
    "pgd",
    "register",
    "robust_accuracy",
    "trades",
]
