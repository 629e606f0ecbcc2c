"""The defenses that ATAT is compared with by its tables and by its readers.

TLA (Mao et al. 2019) and TRADES (Zhang et al. 2019), called as everything in
`defenses` is.
"""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from atat_tf import losses, triplets
from atat_tf.errors import expect
from atat_tf.objective import (
    Objective,
    expect_weight,
    mixture_cross_entropy,
    mixture_outputs,
)


@dataclasses.dataclass(frozen=True)
class TLA:
    """Triplet loss adversarial training (Mao et al. 2019).

    L = L_ce(x_adv) + λ1 · L_trip + λ2 · L_norm, see
    `triplets.triplet_terms`. The embedding is the mean over space of one
    layer's map, what the logits are made of where the network ends in pooling
    and a dense layer. Positives and negatives are taken from the batch, in
    training with several replicas from each replica's own; an image that is
    alone in its class there is its own positive.

    Attributes:
      triplet_weight: λ1, >= 0.
      norm_weight: λ2, >= 0.
      margin: α, in [0, 1], the range of the distance.
      clean_weight: w, in [0, 1): the share of clean images in L_ce. Mao et
        al. take adversarial ones only, w = 0.
      layers: the name of the one layer whose map is pooled.
    """

    triplet_weight: float = 2.0
    norm_weight: float = 1e-3
    margin: float = 0.03
    clean_weight: float = 0.0
    layers: tuple[str, ...] = ("features",)

    terms: ClassVar = ("cross_entropy", "triplet", "embedding_norm")
    needs_attack: ClassVar = True
    needs_teacher: ClassVar = False

    def __post_init__(self):
        expect_weight("triplet_weight", self.triplet_weight)
        expect_weight("norm_weight", self.norm_weight)
        margin, clean = self.margin, self.clean_weight
        expect(0 <= margin <= 1, "margin in [0, 1]", margin=margin)
        expect(0 <= clean < 1, "clean_weight in [0, 1)", clean_weight=clean)
        expect(len(self.layers) == 1, "one layer", layers=self.layers)

    def __call__(self, student, teacher, images, adversarial, labels):
        """Returns the Objective; `teacher` is not read."""
        clean, attacked = mixture_outputs(student, images, adversarial)
        (layer,) = self.layers
        triplet, norm = triplets.triplet_terms(
            labels, _pooled(attacked[layer]), _pooled(clean[layer]), self.margin
        )
        terms = {
            "cross_entropy": mixture_cross_entropy(
                self.clean_weight, labels, clean["logits"], attacked["logits"]
            ),
            "triplet": triplet,
            "embedding_norm": norm,
        }
        loss = (
            terms["cross_entropy"]
            + self.triplet_weight * triplet
            + self.norm_weight * norm
        )
        return Objective(loss, terms, clean["logits"], attacked["logits"])


@dataclasses.dataclass(frozen=True)
class TRADES:
    """TRADES (Zhang et al. 2019): clean cross-entropy and a robust term.

    L = L_ce(x_ori) + β · KL(p(x_ori) ‖ p(x_adv)), with x_adv from an attack
    that maximises the same divergence, `training_attacks.KLAttack`. Both sides
    of it are trained. Clean and adversarial images pass the network together,
    so that batch norm sees both, as in every defense here.

    Attributes:
      robust_weight: β, >= 0.
    """

    robust_weight: float = 6.0

    terms: ClassVar = ("cross_entropy", "kl_divergence")
    needs_attack: ClassVar = True
    needs_teacher: ClassVar = False
    layers: ClassVar = ()
    # What the attack must climb: the labels are not to be read.
    attack_loss: ClassVar = staticmethod(losses.kl_divergence)

    def __post_init__(self):
        expect_weight("robust_weight", self.robust_weight)

    def __call__(self, student, teacher, images, adversarial, labels):
        """Returns the Objective; `teacher` is not read."""
        clean, attacked = mixture_outputs(student, images, adversarial)
        terms = {
            "cross_entropy": losses.cross_entropy(labels, clean["logits"]),
            "kl_divergence": losses.kl_divergence(
                clean["logits"], attacked["logits"]
            ),
        }
        loss = (
            terms["cross_entropy"] + self.robust_weight * terms["kl_divergence"]
        )
        return Objective(loss, terms, clean["logits"], attacked["logits"])


def _pooled(activations):
    """Returns the mean over space, in at least float32: [b, c]."""
    if activations.dtype.size < 4:
        activations = tf.cast(activations, tf.float32)
    return tf.reduce_mean(activations, axis=(1, 2))
