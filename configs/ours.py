"""Our setting of ATAT: the variants of its screening, on WRN-10-1.

    python -m atat_tf.train --config=configs/ours.py:cosine_2 \
        --data_dir=../shared/tfds --workdir=runs/screening/cosine_2

`tools/screen.sh` trains all of them, the teacher first. docs/results.md, "Our
setting", says what is compared and was decided before a run. N-FGSM, 6
epochs, cosine to zero, averaged weights. 5,000 training images are kept aside,
from the teacher too, and the variants are compared on them: the test images
are for what has been chosen.
"""

import ml_collections

from . import base

_FOLDER = "runs/screening"

# What has been found wanting in Eq. 5 and 6 is changed one after the other;
# each variant is the one before it with one thing more.
_AS_WRITTEN = {"name": "atat"}
_ADVERSARIAL_ONLY = {**_AS_WRITTEN, "clean_weight": 0.0}
_MSE = {**_ADVERSARIAL_ONLY, "pairing": "mse"}
_CENTRED = {**_MSE, "score": "centred"}
_COSINE = {**_CENTRED, "map_distance": "cosine"}
# TRADES as a case of Eq. 7: L_ce on clean images, KL as the pairing, β = 6.
_KL = {
    **_COSINE,
    "attention_weight": 0.0,
    "logit_weight": 6.0,
    "clean_weight": 1.0,
    "pairing": "kl",
}


def _cosine(attention_weight, **fields):
    return {**_COSINE, "attention_weight": attention_weight, **fields}


_AT = {"name": "at", "clean_weight": 0.0, "label_smoothing": 0.0}

DEFENSES = {
    # The teacher of all but the four that say otherwise.
    "standard": {"name": "standard", "label_smoothing": 0.0},
    "control_at": _AT,
    "control_at_random": _AT,
    "control_trades": {
        "name": "trades",
        "robust_weight": 6.0,
        "label_smoothing": 0.0,
    },
    "control_kl": _KL,
    "as_written": _AS_WRITTEN,
    "adversarial_only": _ADVERSARIAL_ONLY,
    "mse": _MSE,
    "pairing_only": {**_MSE, "attention_weight": 0.0},
    "centred": _CENTRED,
    "cosine_0.5": _cosine(0.5),
    "cosine_1": _cosine(1.0),
    "cosine_2": _cosine(2.0),
    "cosine_5": _cosine(5.0),
    "margin": _cosine(1.0, score="margin"),
    "two_classes": _cosine(1.0, classes="two"),
    "warm_up": _cosine(
        2.0, attention_schedule=(1 / 3, 0.0), logit_schedule=(1 / 3, 0.0)
    ),
    "decay": _cosine(2.0, attention_schedule=(0.0, 1 / 3)),
    # Towards the student's own running average, which begins as the teacher.
    "own_average": _cosine(2.0),
    "kl": {**_KL, "attention_weight": 1.0},
    # From the weights of control_at, which is the teacher: twice the epochs.
    # control_at_again is what those are worth without a teacher's terms.
    "control_at_again": _AT,
    "robust_teacher": _cosine(2.0),
    "robust_teacher_kl": _cosine(2.0, distillation=1.0),
}

_ROBUST_TEACHER = ("control_at_again", "robust_teacher", "robust_teacher_kl")


def control(variant):
    """Returns the variant that another is held against, None for a control."""
    if variant == "standard" or variant.startswith("control"):
        return None
    if variant in _ROBUST_TEACHER:
        return "control_at_again"
    return "control_kl" if variant == "kl" else "control_at"


def get_config(variant="cosine_1"):
    if variant not in DEFENSES:
        raise ValueError(
            f"Expected a variant among {', '.join(DEFENSES)}. "
            f"Received: {variant!r}."
        )
    config = base.get_config()
    config.unlock()
    fields = DEFENSES[variant]
    if fields["name"] == "atat":
        config.defense.update(fields)
    else:
        config.defense = ml_collections.ConfigDict(fields)
    config.backbone.depth = 10
    config.backbone.width = 1
    config.num_epochs = 6
    config.teacher_num_epochs = 6
    config.num_validation = 5000
    config.optimizer.schedule = "cosine"
    # Over some 200 steps, half an epoch.
    config.optimizer.ema = 0.995
    config.optimizer.ema_statistics = "averaged"
    config.evaluation.attacks = ("clean", "apgd_ce50", "apgd_dlr50")
    config.evaluation.weights = "ema"
    config.evaluation.split = "validation"
    if variant == "standard":
        config.student_start = "random"
        config.evaluation.attacks = ("clean",)
        return config.lock()
    config.attack.name = "trades" if variant == "control_trades" else "n_fgsm"
    config.guard = "rollback"
    if variant == "own_average":
        config.teacher_momentum = 0.995
    teacher = "control_at" if variant in _ROBUST_TEACHER else "standard"
    config.teacher = f"{_FOLDER}/{teacher}"
    if variant == "control_at_random":
        config.student_start = "random"
        config.teacher = ""
    return config.lock()
