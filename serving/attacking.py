"""Square through a served model: what a caller who sees scores can break.

A client, images and a number of queries enter; which images withstand leaves.
The attack is the one of the offline evaluation, with the same seeds.
"""

import numpy as np
import tensorflow as tf

from atat_tf.attacks import randomness, square, stepped

# Steps between two looks at who is broken and needs no more queries.
_LOOK_EVERY = 20


def withstands(client, images, labels, epsilon, queries, seed=0, advance=None):
    """Returns which images a served model still classifies right.

    Args:
      client: grpc_client.Client, of a model with the signature "predict".
      images: uint8 [n, H, W, C].
      labels: int32 [n].
      epsilon: radius of the ℓ∞ ball, pixels in [0, 1].
      queries: for each image, at most; one of them is the image itself.
      seed: image i has the random numbers of (seed, 0, i).
      advance: called with the number of images that are decided.

    Returns:
      bool [n], and the number of images that were sent in all.
    """
    sent = 0

    def logits_fn(points):
        nonlocal sent
        sent += len(points)
        answer = client.predict(points.numpy(), ["logits"], signature="predict")
        return tf.constant(answer["logits"])

    # The start costs two queries: the image, and the first point.
    attack = square.Square(epsilon, num_steps=queries - 2)
    seeds = randomness.example_seeds(seed, 0, np.arange(len(images)))
    pixels = tf.cast(images, tf.float32) / 255.0
    state = attack.start(logits_fn, pixels, tf.constant(labels), seeds)
    state["position"] = tf.range(len(images))
    stands = np.zeros(len(images), bool)
    for step in range(attack.num_steps):
        position = state.pop("position")
        if step % _LOOK_EVERY == 0:
            rest = tf.where(state["broke_at"] == stepped.NEVER)[:, 0]
            if advance:
                advance(len(position) - len(rest))
            state = {name: tf.gather(row, rest) for name, row in state.items()}
            position = tf.gather(position, rest)
            if not len(rest):
                return stands, sent
        state = attack.step(logits_fn, state, tf.constant(step))
        state["position"] = position
    rest = state["broke_at"] == stepped.NEVER
    stands[state["position"].numpy()[rest.numpy()]] = True
    if advance:
        advance(len(rest))
    return stands, sent
