"""The losses of the authors' released code, where they are not the paper's.

They are for finding out what the released code's numbers are worth; the
paper's own method is `atat.ATAT`. In both the student starts from random
weights (the recipes say so) and the teacher is in inference mode.
"""

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from atat_tf import grad_cam, losses
from atat_tf.defenses.objective import (
    Objective,
    as_layers,
    mixture_cross_entropy,
    mixture_outputs,
)

# The released code takes the mean over [clean; adversarial].
_CLEAN_WEIGHT = 0.5


@dataclasses.dataclass(frozen=True)
class ReleasedCIFAR10:
    """The released CIFAR-10 loss: the student's logits follow the teacher's.

    L = mean L_ce over [x_ori; x_adv] + ½ · MSE(z_S(x_ori), z_T(x_ori))
    + ½ · MSE(z_S(x_adv), z_T(x_ori)), z being logits and MSE the mean over
    batch and classes. The released code computes attention terms and never
    adds them; here they are not computed.
    """

    terms: ClassVar = ("cross_entropy", "logit_transfer")
    needs_attack: ClassVar = True
    needs_teacher: ClassVar = True
    layers: ClassVar = ()

    def __call__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        images: tf.Tensor,
        adversarial: tf.Tensor,
        labels: tf.Tensor,
    ) -> Objective:
        """Returns the Objective; arguments as for `atat.ATAT`."""
        target = tf.stop_gradient(teacher(images, training=False)["logits"])
        clean, attacked = mixture_outputs(student, images, adversarial)
        clean, attacked = clean["logits"], attacked["logits"]
        terms = {
            "cross_entropy": mixture_cross_entropy(
                _CLEAN_WEIGHT, labels, clean, attacked
            ),
            "logit_transfer": 0.5 * losses.mean_squared_error(clean, target)
            + 0.5 * losses.mean_squared_error(attacked, target),
        }
        return Objective(sum(terms.values()), terms, clean, attacked)


@dataclasses.dataclass(frozen=True)
class ReleasedCIFAR100:
    """The released CIFAR-100 loss: attention by squared error, no logit term.

    L = mean L_ce over [x_ori; x_adv] + MSE(ATT_S(x_ori), ATT_T(x_ori))
    + MSE(ATT_S(x_adv), ATT_T(x_ori)), MSE being the mean over batch and
    positions. The class score is the mean over batch and classes of
    logits × one-hot, so that maps are Eq. 3 divided by batch · classes: by
    b · k for the teacher, who sees b clean images, and by 2b · k for the
    student, who sees clean and adversarial ones together. Equal networks
    therefore do not have equal maps, and the term is small: of the size of
    1/(b · k)². With several replicas b is the replica's batch.

    Attributes:
      layers: names of the attention layers; the released code has one, the
        last batch norm and leaky ReLU of its network.
    """

    layers: str | tuple[str, ...] = ("deepest",)

    terms: ClassVar = ("cross_entropy", "attention_transfer")
    needs_attack: ClassVar = True
    needs_teacher: ClassVar = True

    def __post_init__(self):
        object.__setattr__(self, "layers", as_layers(self.layers))

    def __call__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        images: tf.Tensor,
        adversarial: tf.Tensor,
        labels: tf.Tensor,
    ) -> Objective:
        """Returns the Objective; arguments as for `atat.ATAT`."""
        classes = losses.classes(labels)
        _, target = _released_maps(teacher, images, classes, training=False)
        target = tf.nest.map_structure(tf.stop_gradient, target)
        logits, maps = _released_maps(
            student,
            tf.concat([images, adversarial], axis=0),
            tf.concat([classes, classes], axis=0),
            training=True,
        )
        clean, attacked = tf.split(logits, 2)
        distances = []
        for layer in self.layers:
            for half in tf.split(maps[layer], 2):
                distances.append(losses.mean_squared_error(half, target[layer]))
        terms = {
            "cross_entropy": mixture_cross_entropy(
                _CLEAN_WEIGHT, labels, clean, attacked
            ),
            "attention_transfer": tf.add_n(distances),
        }
        return Objective(sum(terms.values()), terms, clean, attacked)


def _released_maps(tapped, images, labels, training):
    """Returns logits and maps of the mean, not the sum, of class scores."""
    logits, maps = grad_cam.logits_and_attention(
        tapped, images, labels, training
    )
    # Eq. 1 to 3 are homogeneous: a score divided by n divides its map by n.
    count = tf.size(logits)
    return logits, {
        layer: maps[layer] / tf.cast(count, maps[layer].dtype) for layer in maps
    }
