"""The defenses that ATAT is compared with by its tables and by its readers.

TLA (Mao et al. 2019) and TRADES (Zhang et al. 2019), called as those of `atat`.
"""

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from atat_tf import losses
from atat_tf.defenses.objective import (
    Objective,
    as_layers,
    expect_smoothing,
    expect_weight,
    mixture_cross_entropy,
    mixture_outputs,
)
from atat_tf.errors import expect, with_checked_fields


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class TLA:
    """Triplet loss adversarial training (Mao et al. 2019).

    L = L_ce(x_adv) + λ1 · L_trip + λ2 · L_norm, see
    `compared.triplet_terms`. The embedding is the mean over space of one
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
      label_smoothing: as for `losses.cross_entropy`.
    """

    triplet_weight: float = 2.0
    norm_weight: float = 1e-3
    margin: float = 0.03
    clean_weight: float = 0.0
    layers: str | tuple[str, ...] = ("deepest",)
    label_smoothing: float = 0.0

    terms: ClassVar = ("cross_entropy", "triplet", "embedding_norm")
    needs_attack: ClassVar = True
    needs_teacher: ClassVar = False

    def __post_init__(self):
        expect_weight("triplet_weight", self.triplet_weight)
        expect_weight("norm_weight", self.norm_weight)
        margin, clean = self.margin, self.clean_weight
        expect(0 <= margin <= 1, "margin in [0, 1]", margin=margin)
        expect(0 <= clean < 1, "clean_weight in [0, 1)", clean_weight=clean)
        object.__setattr__(self, "layers", as_layers(self.layers))
        expect(len(self.layers) == 1, "one layer", layers=self.layers)
        expect_smoothing(self.label_smoothing)

    def __call__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        images: tf.Tensor,
        adversarial: tf.Tensor,
        labels: tf.Tensor,
    ) -> Objective:
        """Returns the Objective; `teacher` is not read."""
        clean, attacked = mixture_outputs(student, images, adversarial)
        layer = self.layers[0]
        triplet, norm = triplet_terms(
            losses.classes(labels),
            _pooled(attacked[layer]),
            _pooled(clean[layer]),
            self.margin,
        )
        terms = {
            "cross_entropy": mixture_cross_entropy(
                self.clean_weight,
                labels,
                clean["logits"],
                attacked["logits"],
                self.label_smoothing,
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


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class TRADES:
    """TRADES (Zhang et al. 2019): clean cross-entropy and a robust term.

    L = L_ce(x_ori) + β · KL(p(x_ori) ‖ p(x_adv)), with x_adv from an attack
    that maximises the same divergence, `for_training.KLAttack`. Both sides
    of it are trained. Clean and adversarial images pass the network together,
    so that batch norm sees both, as in every defense here.

    Attributes:
      robust_weight: β, >= 0.
      label_smoothing: as for `losses.cross_entropy`.
    """

    robust_weight: float = 6.0
    label_smoothing: float = 0.0

    terms: ClassVar = ("cross_entropy", "kl_divergence")
    needs_attack: ClassVar = True
    needs_teacher: ClassVar = False
    layers: ClassVar = ()
    # What the attack must climb: the labels are not to be read.
    attack_loss: ClassVar = staticmethod(losses.kl_divergence)

    def __post_init__(self):
        expect_weight("robust_weight", self.robust_weight)
        expect_smoothing(self.label_smoothing)

    def __call__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        images: tf.Tensor,
        adversarial: tf.Tensor,
        labels: tf.Tensor,
    ) -> Objective:
        """Returns the Objective; `teacher` is not read."""
        clean, attacked = mixture_outputs(student, images, adversarial)
        terms = {
            "cross_entropy": losses.cross_entropy(
                labels, clean["logits"], self.label_smoothing
            ),
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


def cosine_distances(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns D(u, v) = 1 − |u · v| / (‖u‖ ‖v‖) for every pair of rows.

    Args:
      first: float [a, d].
      second: float [b, d].

    Returns:
      [a, b], in [0, 1]; 1 where a row is zero, which has no direction.
    """
    cosines = tf.matmul(_directions(first), _directions(second), False, True)
    return 1.0 - tf.abs(cosines)


def positives(labels: tf.Tensor) -> tf.Tensor:
    """Returns for each image another one of its class: the next in the batch.

    Counted on from the image, and from the start again after the end. Batches
    are shuffled, so this is a random choice. An image that is alone in its
    class is its own positive.

    Args:
      labels: integers [b].

    Returns:
      int32 [b], positions in the batch.
    """
    count = tf.size(labels)
    positions = tf.range(count)
    # 1 for the next image, and so on; the image itself comes last.
    ahead = (positions[None, :] - positions[:, None] - 1) % count
    same = labels[:, None] == labels[None, :]
    return tf.argmin(tf.where(same, ahead, count), 1, tf.int32)


def negatives(
    labels: tf.Tensor, distances: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns for each anchor the nearest image of another class.

    Args:
      labels: integers [b].
      distances: float [b, b], from anchor i to clean image j.

    Returns:
      int32 [b], positions in the batch, and bool [b]: whether there is any
      image of another class.
    """
    other = labels[:, None] != labels[None, :]
    infinity = distances.dtype.max
    nearest = tf.argmin(tf.where(other, distances, infinity), 1, tf.int32)
    return nearest, tf.reduce_any(other, axis=1)


def triplet_terms(
    labels: tf.Tensor, anchors: tf.Tensor, clean: tf.Tensor, margin: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the triplet loss and the norms' sum for each anchor.

    L_trip = max(D(h_a, h_p) − D(h_a, h_n) + α, 0) and
    L_norm = ‖h_a‖_2 + ‖h_p‖_2 + ‖h_n‖_2, with the anchor h_a of an
    adversarial image, h_p of another clean image of its class, h_n of the
    nearest clean image of another class. Without an image of another class
    the negative counts for nothing: L_trip is 0, L_norm is of two.

    Args:
      labels: integers [b].
      anchors: embeddings of the adversarial images, float [b, d].
      clean: embeddings of the clean images, float [b, d].
      margin: α.

    Returns:
      [b] and [b], both >= 0.
    """
    distances = cosine_distances(anchors, clean)
    positive = positives(labels)
    negative, exists = negatives(labels, distances)
    exists = tf.cast(exists, anchors.dtype)
    to_positive = tf.gather(distances, positive, axis=1, batch_dims=1)
    to_negative = tf.gather(distances, negative, axis=1, batch_dims=1)
    triplet = exists * tf.nn.relu(to_positive - to_negative + margin)
    norms = losses.safe_norm(clean)
    norm = losses.safe_norm(anchors) + tf.gather(norms, positive)
    return triplet, norm + exists * tf.gather(norms, negative)


def _directions(rows):
    # A gradient of zero where the row is zero.
    return tf.math.divide_no_nan(rows, losses.safe_norm(rows)[:, None])
