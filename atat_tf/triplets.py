"""Triplets of embeddings in a batch, and their loss (Mao et al. 2019).

Embeddings of adversarial images (anchors) and of clean images enter; for each
anchor its positive, its negative and the two terms of the loss leave.
"""

import tensorflow as tf

from atat_tf import losses


def cosine_distances(first, second):
    """Returns D(u, v) = 1 − |u · v| / (‖u‖ ‖v‖) for every pair of rows.

    Args:
      first: float [a, d].
      second: float [b, d].

    Returns:
      [a, b], in [0, 1]; 1 where a row is zero, which has no direction.
    """
    cosines = tf.matmul(_directions(first), _directions(second), False, True)
    return 1.0 - tf.abs(cosines)


def positives(labels):
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


def negatives(labels, distances):
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


def triplet_terms(labels, anchors, clean, margin):
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
