"""Activations that are computed again for the gradient instead of kept.

A tapped model enters; one of the same answers leaves that keeps, below the
lowest attention layer, only what passes between its segments. Recomputed
functions have no second derivative, which the gradient of attention (Eq. 3)
needs: at and above that layer everything is kept.
"""

import keras
import tensorflow as tf

from atat_tf.models import graphs


class Recomputed:
    """A model from `graphs.with_taps` that keeps fewer activations.

    About √n of the n tensors that everything below passes through are kept,
    and one segment between two of them is there again at a time.

    Args:
      tapped: functional keras.Model from `graphs.with_taps`.
      layers: its tapped layers.

    Attributes:
      num_segments: how many parts are recomputed, 0 where there is none.
    """

    def __init__(self, tapped, layers):
        cuts = _kept(_cuts(tapped, layers))
        ends = zip(cuts[:-1], cuts[1:], strict=True)
        self._segments = [keras.Model(start, end) for start, end in ends]
        self._rest = keras.Model(cuts[-1], tapped.output)
        self.num_segments = len(self._segments)

    def __call__(self, images, training=False):
        """Returns what the tapped model does, a dictionary of tensors."""
        x = images
        for segment in self._segments:
            x = _recomputed(segment, x, training)
        return self._rest(x, training=training)


def _recomputed(segment, x, training):
    states = segment.non_trainable_variables
    before = []

    def forward(x):
        if not before:
            before.extend(tf.convert_to_tensor(state) for state in states)
            return segment(x, training=training)
        # Again, for the gradient: from the same states, dropout's seeds among
        # them, and without moving the statistics a second time.
        with keras.StatelessScope(list(zip(states, before, strict=True))):
            return segment(x, training=training)

    return tf.recompute_grad(forward)(x)


def _kept(cuts):
    """Returns about √n of n cuts, the first and the last among them."""
    last = len(cuts) - 1
    number = max(round(last**0.5), 1) if last else 0
    places = {round(n * last / max(number, 1)) for n in range(number + 1)}
    return [cuts[place] for place in sorted(places)]


def _cuts(tapped, layers):
    """Returns the tensors, the images first, that all later ones come from.

    Those before the first tapped layer; without tapped layers, all but the
    last one, the logits.
    """
    order = _in_order(tapped.output)
    uses = {}
    for tensor in order:
        for earlier in graphs.made_by(tensor)[1]:
            uses[id(earlier)] = uses.get(id(earlier), 0) + 1
    cuts, waiting = [], set()
    for tensor in order[:-1]:
        layer, inputs = graphs.made_by(tensor)
        if layer.name in layers:
            break
        for earlier in inputs:
            uses[id(earlier)] -= 1
            if not uses[id(earlier)]:
                waiting.discard(id(earlier))
        waiting.add(id(tensor))
        if len(waiting) == 1:
            cuts.append(tensor)
    return cuts


def _in_order(outputs):
    """Returns every tensor of a functional model after all it is made of."""
    order, seen = [], set()
    waiting = [(tensor, False) for tensor in outputs.values()]
    while waiting:
        tensor, is_done = waiting.pop()
        if is_done:
            order.append(tensor)
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            waiting.append((tensor, True))
            inputs = graphs.made_by(tensor)[1]
            waiting.extend((earlier, False) for earlier in reversed(inputs))
    return order
