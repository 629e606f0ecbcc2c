"""Defenses: what a training step minimises, up to Equation 7.

A student, a teacher, clean and adversarial images enter; per-example losses
leave, whole and term by term. `student` and `teacher` are models from
`graphs.with_taps`.
"""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from atat_tf import attention, losses
from atat_tf.defenses import compared, released
from atat_tf.defenses.objective import (
    Objective,
    expect_weight,
    mixture_cross_entropy,
    mixture_outputs,
)
from atat_tf.errors import expect


@dataclasses.dataclass(frozen=True)
class Standard:
    """Cross-entropy on clean images: min_θ E[L_ce(f_θ(x), y)] (§2.2)."""

    terms: ClassVar = ("cross_entropy",)
    needs_attack: ClassVar = False
    needs_teacher: ClassVar = False
    layers: ClassVar = ()

    def __call__(self, student, teacher, images, adversarial, labels):
        """Returns the Objective; `teacher` and `adversarial` are not read."""
        logits = student(images, training=True)["logits"]
        loss = losses.cross_entropy(labels, logits)
        return Objective(loss, {"cross_entropy": loss}, logits, None)


@dataclasses.dataclass(frozen=True)
class AdversarialTraining:
    """AT: cross-entropy over the mixture of clean and adversarial images.

    L_ce = w · L_ce(x_ori) + (1 − w) · L_ce(x_adv); w = ½ is the mean over the
    mixture (§3.3), w = 0 is Madry et al. 2018: adversarial images only, clean
    ones are then not forwarded at all.

    Attributes:
      clean_weight: w, in [0, 1).
    """

    clean_weight: float = 0.5

    terms: ClassVar = ("cross_entropy",)
    needs_attack: ClassVar = True
    needs_teacher: ClassVar = False
    layers: ClassVar = ()

    def __post_init__(self):
        weight = self.clean_weight
        expect(0 <= weight < 1, "clean_weight in [0, 1)", clean_weight=weight)

    def __call__(self, student, teacher, images, adversarial, labels):
        """Returns the Objective; `teacher` is not read."""
        if self.clean_weight == 0:
            logits = student(adversarial, training=True)["logits"]
            loss = losses.cross_entropy(labels, logits)
            return Objective(loss, {"cross_entropy": loss}, None, logits)
        clean, attacked = mixture_outputs(student, images, adversarial)
        clean, attacked = clean["logits"], attacked["logits"]
        loss = mixture_cross_entropy(self.clean_weight, labels, clean, attacked)
        return Objective(loss, {"cross_entropy": loss}, clean, attacked)


@dataclasses.dataclass(frozen=True)
class LogitPairing:
    """ALP (Kannan et al. 2018): AT plus λ2 · Eq. 6.

    Attributes:
      logit_weight: λ2, >= 0.
      clean_weight: w of `AdversarialTraining`, in (0, 1).
    """

    logit_weight: float = 1.0
    clean_weight: float = 0.5

    terms: ClassVar = ("cross_entropy", "logit_pairing")
    needs_attack: ClassVar = True
    needs_teacher: ClassVar = False
    layers: ClassVar = ()

    def __post_init__(self):
        expect_weight("logit_weight", self.logit_weight)
        _expect_clean_weight(self.clean_weight)

    def __call__(self, student, teacher, images, adversarial, labels):
        """Returns the Objective; `teacher` is not read."""
        base = AdversarialTraining(self.clean_weight)
        objective = base(student, teacher, images, adversarial, labels)
        pairing = losses.logit_pairing(
            objective.clean_logits, objective.adversarial_logits
        )
        return objective._replace(
            loss=objective.loss + self.logit_weight * pairing,
            terms={**objective.terms, "logit_pairing": pairing},
        )


@dataclasses.dataclass(frozen=True)
class ATAT:
    """Attention-transfer adversarial training, the paper's method.

    Eq. 7: L_total = L_ce + λ1 · L_at + λ2 · L_lp, with L_ce over the mixture,
    L_at of Eq. 5 against the teacher's clean attention, L_lp of Eq. 6. The
    maps are of the true class.

    Attributes:
      attention_weight: λ1, >= 0.
      logit_weight: λ2, >= 0.
      clean_weight: w of `AdversarialTraining`, in (0, 1).
      layers: names of the layers l of Eq. 4 and 5.
    """

    attention_weight: float = 1.0
    logit_weight: float = 1.0
    clean_weight: float = 0.5
    layers: tuple[str, ...] = ("features",)

    terms: ClassVar = ("cross_entropy", "attention_transfer", "logit_pairing")
    needs_attack: ClassVar = True
    needs_teacher: ClassVar = True

    def __post_init__(self):
        expect_weight("attention_weight", self.attention_weight)
        expect_weight("logit_weight", self.logit_weight)
        _expect_clean_weight(self.clean_weight)
        expect(self.layers, "at least one attention layer", layers=self.layers)

    def __call__(self, student, teacher, images, adversarial, labels):
        """Returns the Objective.

        Args:
          student: tapped model, forwarded once, in training mode, on the
            mixture of clean and adversarial images.
          teacher: tapped model, in inference mode, on clean images.
          images: float32 [b, H, W, C] in [0, 1].
          adversarial: the same shape; a constant for the gradient.
          labels: integers [b].
        """
        _, teacher_maps = attention.logits_and_attention(
            teacher, images, labels, training=False
        )
        # Frozen layers do not stop a tape: Keras fixes what it watches when
        # a variable is made.
        teacher_maps = tf.nest.map_structure(tf.stop_gradient, teacher_maps)
        mixture = tf.concat([images, adversarial], axis=0)
        twice = tf.concat([labels, labels], axis=0)
        logits, maps = attention.logits_and_attention(
            student, mixture, twice, training=True
        )
        clean_logits, adversarial_logits = tf.split(logits, 2)
        clean_maps, adversarial_maps = {}, {}
        for layer in self.layers:
            clean_maps[layer], adversarial_maps[layer] = tf.split(
                maps[layer], 2
            )

        terms = {
            "cross_entropy": mixture_cross_entropy(
                self.clean_weight, labels, clean_logits, adversarial_logits
            ),
            "attention_transfer": losses.attention_transfer(
                teacher_maps, adversarial_maps, clean_maps
            ),
            "logit_pairing": losses.logit_pairing(
                clean_logits, adversarial_logits
            ),
        }
        loss = (
            terms["cross_entropy"]
            + self.attention_weight * terms["attention_transfer"]
            + self.logit_weight * terms["logit_pairing"]
        )
        return Objective(loss, terms, clean_logits, adversarial_logits)


DEFENSES = {
    "standard": Standard,
    "at": AdversarialTraining,
    "alp": LogitPairing,
    "tla": compared.TLA,
    "trades": compared.TRADES,
    "atat": ATAT,
    "released_cifar10": released.ReleasedCIFAR10,
    "released_cifar100": released.ReleasedCIFAR100,
}


def _expect_clean_weight(value):
    expect(0 < value < 1, "clean_weight in (0, 1)", clean_weight=value)
