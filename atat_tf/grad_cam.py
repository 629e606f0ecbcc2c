"""Grad-CAM attention: Equations 1, 2 and 3, and the tape that feeds them.

Everything is differentiable once more, so a loss on the maps trains the
weights.
"""

import contextvars
import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from atat_tf import losses
from atat_tf.errors import expect, expect_known


def location_map(activations: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns the location map of one class for each example.

    Eq. 1: L^c = Σ_k w_k^c A_k.

    Args:
      activations: A, float [b, h, w, c].
      weights: w^c, float [b, c].

    Returns:
      float [b, h, w].
    """
    return tf.einsum("bhwc,bc->bhw", activations, weights)


def channel_weights(gradients: tf.Tensor) -> tf.Tensor:
    """Returns the weight of each channel for one class.

    Eq. 2: w_k^c = GAP(∂y^c / ∂A_k), GAP being the mean over space.

    Args:
      gradients: ∂y^c / ∂A, float [b, h, w, c].

    Returns:
      float [b, c].
    """
    return tf.reduce_mean(gradients, axis=(1, 2))


def attention_map(activations: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Returns the attention map for each example.

    Eq. 3: ATT^c(x) = ReLU(Σ_k GAP(∂y^c / ∂A_k) A_k(x)); the printed formula
    lacks the bracket that closes GAP.

    Args:
      activations: A, float [b, h, w, c].
      gradients: ∂y^c / ∂A, the same shape.

    Returns:
      float [b, h, w], >= 0. At least float32, whatever the layers compute in.
    """
    activations = _at_least_float32(activations)
    gradients = _at_least_float32(gradients)
    return tf.nn.relu(location_map(activations, channel_weights(gradients)))


def class_logit(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns y^c, the paper's class score, for each example.

    Args:
      labels: integers [b], the class c.
      logits: float [b, k].

    Returns:
      [b], the dtype of the logits.
    """
    return tf.gather(logits, labels, axis=-1, batch_dims=1)


def centred_logit(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns y^c − mean_j y^j, which a shift of all logits leaves alone.

    One map added to the maps of all classes changes no probability, and so no
    other loss; it does change the map of y^c, and not that of this score.
    Arguments and result as for `class_logit`.
    """
    return class_logit(labels, logits) - tf.reduce_mean(logits, axis=-1)


# {name: (labels, logits) -> the class score of Eq. 2, [b]}
SCORES = {
    "logit": class_logit,
    "centred": centred_logit,
    "margin": losses.margin,
}


# Of this thread, since replicas run in threads of their own.
_TAPE: contextvars.ContextVar[tf.GradientTape | None] = contextvars.ContextVar(
    "tape", default=None
)


class Tap(keras.layers.Layer):
    """Hands activations on as they are, and has Eq. 2's tape watch them.

    A tape goes back to the first tensor that it watches. From a watched image
    it would differentiate the whole network, and nobody reads the gradients
    before the activations.
    """

    def __init__(self, name: str):
        # Nothing is rounded to the policy's number type.
        super().__init__(name=name, dtype="float32", autocast=False)

    def call(self, activations: tf.Tensor) -> tf.Tensor:
        tape = _TAPE.get()
        if tape is not None:
            tape.watch(activations)
        return activations


def logits_and_attention(
    tapped: keras.Model,
    images: tf.Tensor,
    labels: tf.Tensor | None = None,
    training: bool = False,
    score: str = "logit",
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Returns the logits and the attention maps of the labelled classes.

    The class scores are summed, not averaged, before the inner gradient, so
    that in inference mode each map depends on its own image alone.

    Args:
      tapped: a model from `graphs.with_taps`: images -> {"logits", layer...}.
      images: float32 [b, H, W, C].
      labels: integers [b], the class c whose score is followed; None for the
        predicted classes.
      training: whether batch norm uses (and updates) the batch's statistics.
      score: of SCORES, the score y^c of a class.

    Returns:
      logits float [b, k], and {layer: attention map [b, h, w]}.

    Raises:
      InputError: there is no such score.
    """

    def classes(logits):
        return [tf.argmax(logits, axis=-1) if labels is None else labels]

    logits, (maps,) = logits_and_attentions(
        tapped, images, classes, training, score
    )
    return logits, maps


def logits_and_attentions(
    tapped: keras.Model,
    images: tf.Tensor,
    classes: Callable[[tf.Tensor], Sequence[tf.Tensor]],
    training: bool = False,
    score: str = "logit",
) -> tuple[tf.Tensor, list[dict[str, tf.Tensor]]]:
    """Returns the logits and the attention maps of several classes an image.

    One forward pass, and one gradient for each class.

    Args:
      tapped, images, training, score: as for `logits_and_attention`.
      classes: logits [b, k] -> labels [b] for each map that is wanted.

    Returns:
      logits float [b, k], and for each of the classes {layer: [b, h, w]}.

    Raises:
      InputError: there is no such score, or the logits have no gradient to a
        layer.
    """
    expect_known("a class score", score, SCORES)
    with tf.GradientTape(
        persistent=True, watch_accessed_variables=False
    ) as tape:
        token = _TAPE.set(tape)
        try:
            activations = dict(tapped(images, training=training))
        finally:
            _TAPE.reset(token)
        logits = activations.pop("logits")
        scores = [
            tf.reduce_sum(SCORES[score](labels, logits))
            for labels in classes(logits)
        ]
    attended = []
    for of_class in scores:
        gradients = tape.gradient(of_class, activations)
        for layer, gradient in gradients.items():
            expect(
                gradient is not None,
                f"logits with a gradient to the layer {layer!r}, of which its "
                "attention map is made (a stop_gradient, a rounding or a cast "
                "to integers between them cuts it; choose another layer)",
                gradient=gradient,
            )
        attended.append(
            {
                layer: attention_map(activations[layer], gradients[layer])
                for layer in activations
            }
        )
    return logits, attended


def explanation(
    tapped: keras.Model,
    images: tf.Tensor,
    labels: tf.Tensor | None = None,
    pooled_head: tf.Tensor | None = None,
    score: str = "logit",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the logits and the attention map at one layer, for reading.

    What figures and served models show. It equals `logits_and_attention` in
    inference mode; where the layer is followed by a mean over space and one
    dense layer, Eq. 2 has the closed form w_k^c = V_kc / (h · w) with V_kc
    of `_head_of_score`, and no gradient is taken.

    Args:
      tapped: a model from `graphs.with_taps` with one layer.
      images: float32 [b, H, W, C].
      labels: integers [b]; None for the predicted classes.
      pooled_head: W, float [c, k] from `classifiers.pooled_head`, or None where
        there is no such head.
      score: of SCORES.

    Returns:
      logits float [b, k] and the map of Eq. 3, float [b, h, w], >= 0.

    Raises:
      InputError: there is no such score.
    """
    expect_known("a class score", score, SCORES)
    if pooled_head is None:
        logits, maps = logits_and_attention(tapped, images, labels, score=score)
        (attention,) = maps.values()
        return logits, attention
    outputs = dict(tapped(images, training=False))
    logits = outputs.pop("logits")
    (activations,) = (_at_least_float32(a) for a in outputs.values())
    if labels is None:
        labels = tf.argmax(logits, axis=-1)
    weights = _head_of_score(score, pooled_head, labels, logits)
    weights /= tf.cast(tf.reduce_prod(activations.shape[1:3]), weights.dtype)
    weights = tf.cast(weights, activations.dtype)
    return logits, tf.nn.relu(location_map(activations, weights))


def _head_of_score(score, head, labels, logits):
    """Returns the score's gradient to the pooled activations, [b, c].

    W_kc of the class, less the mean over classes where the score is centred,
    less that of the strongest other class where it is the margin.
    """
    head = _at_least_float32(tf.transpose(head))
    of_class = tf.gather(head, labels)
    if score == "centred":
        return of_class - tf.reduce_mean(head, axis=0)
    if score == "margin":
        other = losses.strongest_other(labels, logits)
        return of_class - tf.gather(head, other)
    return of_class


def scaled_for_reading(maps: tf.Tensor) -> tf.Tensor:
    """Returns each map divided by its maximum; an empty map stays zero.

    Args:
      maps: float [b, h, w], >= 0.

    Returns:
      float [b, h, w] in [0, 1].
    """
    return tf.math.divide_no_nan(
        maps, tf.reduce_max(maps, axis=(1, 2), keepdims=True)
    )


def _at_least_float32(x):
    return tf.cast(x, tf.float32) if x.dtype.size < 4 else x


SHIFT_NAMES = ("cosine_distance", "l2_distance", "top_decile_mass")


def shift_numbers(
    clean: np.ndarray, attacked: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the three numbers of each image.

    Args:
      clean: float [n, h, w], >= 0, attention maps of clean images (Eq. 3).
      attacked: float [n, h, w], of the same images attacked.

    Returns:
      {name of SHIFT_NAMES: float64 [n]}.
    """
    return {
        "cosine_distance": cosine_distance(clean, attacked),
        "l2_distance": l2_distance(clean, attacked),
        "top_decile_mass": top_decile_mass(clean, attacked),
    }


def cosine_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns 1 − ⟨u, v⟩ / (‖u‖ ‖v‖) of vectorised maps, for each image.

    It does not change when a map is scaled, so maps of different networks
    can be compared.

    Args:
      first: float [n, h, w], >= 0.
      second: float [n, h, w], >= 0.

    Returns:
      float64 [n] in [0, 1]; 1 where one map is empty, 0 where both are.
    """
    u, v = _vectors(first), _vectors(second)
    norms = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    products = (u * v).sum(1)
    with np.errstate(invalid="ignore"):
        distance = 1 - np.divide(
            products, norms, out=np.zeros_like(norms), where=norms > 0
        )
    both_empty = ~u.any(1) & ~v.any(1)
    return np.where(both_empty, 0.0, distance.clip(0, 1))


def l2_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns ‖v(first) − v(second)‖_2 for each image, Eq. 4 of one layer.

    Args:
      first: float [n, h, w].
      second: float [n, h, w].

    Returns:
      float64 [n], >= 0, in the unit of the maps.
    """
    return np.linalg.norm(_vectors(first) - _vectors(second), axis=1)


def top_decile_mass(clean: np.ndarray, attacked: np.ndarray) -> np.ndarray:
    """Returns the share of the attacked map inside the clean map's top decile.

    The top decile are the ⌈h·w / 10⌉ places where the clean map is largest;
    of equal ones the first in reading order.

    Args:
      clean: float [n, h, w], >= 0.
      attacked: float [n, h, w], >= 0.

    Returns:
      float64 [n] in [0, 1]; NaN where a map is empty and nothing can be said.
    """
    places, values = _vectors(clean), _vectors(attacked)
    count = math.ceil(places.shape[1] / 10)
    top = np.argsort(-places, axis=1, kind="stable")[:, :count]
    inside = np.take_along_axis(values, top, 1).sum(1)
    mass = values.sum(1)
    known = (mass > 0) & places.any(1)
    return np.divide(inside, mass, out=np.full_like(mass, np.nan), where=known)


def _vectors(maps):
    maps = np.asarray(maps, np.float64)
    return maps.reshape(len(maps), -1)
