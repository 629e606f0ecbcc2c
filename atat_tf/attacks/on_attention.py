"""PGD that goes for the attention map as well as for the label.

What an attacker does who knows that a classifier was trained to keep its
attention: the map of the attacked image is kept where it was while the label
changes, or driven away from there.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from atat_tf import grad_cam, losses
from atat_tf.attacks import linf, stepped
from atat_tf.errors import with_checked_fields
from atat_tf.models import graphs

_CLEAN_MAP = "clean_map/"


def logits_and_maps_function(
    classifier: keras.Model, layers: Sequence[str], score: str = "logit"
) -> Callable:
    """Returns (images, labels) -> logits [b, k], {layer: map [b, h, w]}.

    In inference mode, with the maps of Eq. 3 for the labelled classes. Its
    name tells the layers and the score, as part of an attack's description.

    Args:
      classifier: functional, images -> logits.
      layers: names of layers with a spatial map.
      score: of `grad_cam.SCORES`, the score that the maps explain.

    Raises:
      InputError: there is no such score, a layer does not exist or has no
        spatial map, or the logits have no gradient to it.
    """
    tapped = graphs.with_taps(classifier, layers)

    def logits_and_maps(images, labels):
        return grad_cam.logits_and_attention(
            tapped, images, labels, score=score
        )

    # Traced once, so that a missing gradient is told before any attack.
    tf.function(logits_and_maps, autograph=False).get_concrete_function(
        tf.TensorSpec([None, *classifier.input_shape[1:]]),
        tf.TensorSpec([None], tf.int32),
    )
    name = f"maps_at_{'+'.join(layers)}"
    # Without the paper's own: verdicts from before keep their description.
    logits_and_maps.__name__ = name if score == "logit" else f"{score}_{name}"
    return logits_and_maps


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class AttentionAttack:
    """PGD on cross-entropy and attention, as a stepped attack, see `stepped`.

    x^{t+1} = P_{S_∞(ε)}(x^t + α · sgn(∇_x L(x^t))), with
    L(x') = L_ce(x', y) − w · Σ_l ‖v(ATT^l(x')) − v(ATT^l(x))‖_2   (Eq. 3, 4),
    both maps of the attacked classifier and the true class y.

    Attributes:
      epsilon: ε, the radius, in the unit of the pixels.
      step_size: α, in the same unit.
      num_steps: number of gradients, >= 1.
      weight: w; above 0 pulls the map to the clean image's, below 0 pushes it
        away, 0 is PGD.
      logits_and_maps: (images, labels) -> logits, {layer: map} of the attacked
        classifier, see `logits_and_maps_function`.
      random_start: whether x^0 is uniform in the ball, or the image itself.
      bounds: the smallest and the largest pixel value.
    """

    epsilon: float
    step_size: float
    num_steps: int
    weight: float
    logits_and_maps: Callable
    random_start: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        linf.settle_ball(self)
        self._ascent({})  # which checks what it shares with PGD

    def start(
        self,
        logits_fn: Callable,
        images: tf.Tensor,
        labels: tf.Tensor,
        seeds: tf.Tensor,
    ) -> stepped.State:
        """Returns the rows before any step, the clean maps among them."""
        stepped.expect_images(images, self.bounds)
        logits, maps = self.logits_and_maps(images, labels)
        state = stepped.first_state(lambda _: logits, images, labels, seeds)
        clean = {_CLEAN_MAP + layer: maps[layer] for layer in maps}
        point = self._ascent({}).first_point(images, seeds)
        return {**state, **clean, "point": point}

    def step(
        self, logits_fn: Callable, state: stepped.State, index: tf.Tensor
    ) -> stepped.State:
        """Returns the rows after step `index`, int32 [] from 0."""
        labels, point = state["labels"], state["point"]
        clean_maps = {
            name.removeprefix(_CLEAN_MAP): row
            for name, row in state.items()
            if name.startswith(_CLEAN_MAP)
        }
        after, (logits, _) = self._ascent(clean_maps).next_point(
            lambda images: self.logits_and_maps(images, labels),
            point,
            state["images"],
            labels,
        )
        # The forward pass of the gradient judges the point it is taken at.
        state = stepped.judged(state, point, logits, index - 1)
        state = tf.cond(
            index + 1 == self.num_steps,
            lambda: stepped.judged(state, after, logits_fn(after), index),
            lambda: state,
        )
        return {**state, "point": after}

    def _ascent(self, clean_maps):
        """Returns the PGD that climbs L, for a function to logits and maps."""

        def loss(labels, logits_and_maps):
            logits, maps = logits_and_maps
            distance = losses.attention_distance(maps, clean_maps)
            distance = tf.cast(distance, logits.dtype)
            return losses.cross_entropy(labels, logits) - self.weight * distance

        return linf.LinfAttack(
            self.epsilon,
            self.step_size,
            self.num_steps,
            self.random_start,
            bounds=self.bounds,
            loss_fn=loss,
        )
