"""Per-example losses: cross-entropy, Equations 4, 5 and 6, and others' own.

Logits and attention maps enter, one number for each example leaves; nothing
here knows of models, batches on several devices, or weights of a sum.
"""

import tensorflow as tf

from atat_tf.errors import InputError

# Added to the denominator of both ratios, as their authors do: without effect
# on logits that differ, and 0 / 0 is 0 where all are equal.
_RATIO_GUARD = 1e-12


def cross_entropy(labels, logits):
    """Returns L_ce = -log softmax(logits)[label] (§2.2) for each example.

    Args:
      labels: integers [b], class indices.
      logits: float [b, k], unnormalised scores.

    Returns:
      [b], the dtype of the logits, in nats, >= 0.
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=labels, logits=logits
    )


def safe_norm(x, epsilon=1e-12):
    """Returns ‖v(x)‖_2 for each example, with gradient 0 where x is 0.

    `tf.norm` has a NaN gradient at zero, and zero occurs: the student starts
    as a copy of the teacher, and ReLU can empty two maps. Below `epsilon` the
    value itself is 0 too.

    Args:
      x: float [b, ...], vectorised over all but the first axis.
      epsilon: norms up to this count as zero.

    Returns:
      [b], the dtype of x, >= 0.
    """
    squared = tf.reduce_sum(tf.square(x), axis=list(range(1, x.shape.rank)))
    is_zero = squared <= tf.cast(epsilon, squared.dtype) ** 2
    # The guard goes inside the root: `where` alone would still multiply the
    # infinite derivative of the root at zero by zero.
    root = tf.sqrt(tf.where(is_zero, tf.ones_like(squared), squared))
    return tf.where(is_zero, tf.zeros_like(squared), root)


def attention_distance(first, second):
    """Returns the distance of two sets of attention maps for each example.

    Eq. 4: L_at = Σ_l ‖v(ATT_T^l(x1)) − v(ATT_S^l(x2))‖_2.

    Args:
      first: {layer: float [b, h, w]}, one entry for each layer l.
      second: the same layers and shapes.

    Returns:
      [b], >= 0.

    Raises:
      InputError: the two sets name different layers, or none.
    """
    if not first or set(first) != set(second):
        raise InputError(
            "Expected two non-empty sets of maps over the same layers. "
            f"Received: {sorted(first)} and {sorted(second)}."
        )
    layers = sorted(first)
    return tf.add_n([safe_norm(first[k] - second[k]) for k in layers])


def attention_transfer(teacher_clean, student_adversarial, student_clean):
    """Returns the attention-transfer loss for each example.

    Eq. 5: L_at = Σ_l ‖v(ATT_T^l(x_ori)) − v(ATT_S^l(x_adv))‖_2
                    + ‖v(ATT_T^l(x_ori)) − v(ATT_S^l(x_ori))‖_2.

    Args:
      teacher_clean: {layer: float [b, h, w]}, the teacher's maps on x_ori.
      student_adversarial: the student's maps on x_adv.
      student_clean: the student's maps on x_ori.

    Returns:
      [b], >= 0.
    """
    return attention_distance(
        teacher_clean, student_adversarial
    ) + attention_distance(teacher_clean, student_clean)


def logit_pairing(clean_logits, adversarial_logits):
    """Returns the logit-pairing loss for each example.

    Eq. 6: L_lp = ‖p_S(x_ori) − p_S(x_adv)‖_2, where p_S are logits.

    Args:
      clean_logits: float [b, k].
      adversarial_logits: float [b, k].

    Returns:
      [b], >= 0.
    """
    return safe_norm(clean_logits - adversarial_logits)


def kl_divergence(clean_logits, logits):
    """Returns KL(p ‖ q) = Σ_j p_j (log p_j − log q_j) for each example.

    p is the softmax of the clean logits, q that of the others: what TRADES
    (Zhang et al. 2019) minimises and its attack maximises.

    Args:
      clean_logits: float [b, k].
      logits: float [b, k].

    Returns:
      [b], the dtype of the logits, in nats, >= 0 up to rounding.
    """
    log_p = tf.nn.log_softmax(clean_logits)
    difference = log_p - tf.nn.log_softmax(logits)
    return tf.reduce_sum(tf.exp(log_p) * difference, axis=-1)


def mean_squared_error(first, second):
    """Returns the mean of (first − second)² for each example.

    Args:
      first: float [b, ...].
      second: the same shape.

    Returns:
      [b], >= 0; its mean over the batch is the mean over everything.
    """
    squared = tf.math.squared_difference(first, second)
    return tf.reduce_mean(squared, axis=list(range(1, squared.shape.rank)))


def margin(labels, logits):
    """Returns z_y − max_{j≠y} z_j for each example: negative when wrong.

    Args:
      labels: integers [b].
      logits: float [b, k].

    Returns:
      [b], the dtype of the logits.
    """
    is_label = tf.one_hot(labels, tf.shape(logits)[-1], True, False, dtype=bool)
    of_label = tf.gather(logits, labels, axis=-1, batch_dims=1)
    others = tf.where(is_label, logits.dtype.min, logits)
    return of_label - tf.reduce_max(others, axis=-1)


def targeted_margin(labels, targets, logits):
    """Returns z_y − z_t for each example: negative when t beats the label.

    Args:
      labels: integers [b].
      targets: integers [b], the wrong class t to compare with.
      logits: float [b, k].

    Returns:
      [b], the dtype of the logits.
    """
    of_label = tf.gather(logits, labels, axis=-1, batch_dims=1)
    return of_label - tf.gather(logits, targets, axis=-1, batch_dims=1)


def dlr(labels, logits):
    """Returns the difference of logits ratio for each example.

    −(z_y − max_{j≠y} z_j) / (z_π1 − z_π3), with π the classes in descending
    order of their logits (Croce & Hein 2020, Eq. 6). Unlike the cross-entropy
    it does not change when logits are shifted or scaled.

    Args:
      labels: integers [b].
      logits: float [b, k], k >= 3.

    Returns:
      [b], the dtype of the logits, >= -1; positive when wrong.
    """
    largest = tf.math.top_k(logits, 3).values
    spread = largest[:, 0] - largest[:, 2]
    return -margin(labels, logits) / (spread + _RATIO_GUARD)


def targeted_dlr(labels, targets, logits):
    """Returns the targeted difference of logits ratio for each example.

    −(z_y − z_t) / (z_π1 − (z_π3 + z_π4) / 2), with π the classes in
    descending order of their logits (Croce & Hein 2020, Eq. 7).

    Args:
      labels: integers [b].
      targets: integers [b], the wrong class t to reach.
      logits: float [b, k], k >= 4.

    Returns:
      [b], the dtype of the logits; positive when t beats the label.
    """
    largest = tf.math.top_k(logits, 4).values
    spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    difference = targeted_margin(labels, targets, logits)
    return -difference / (spread + _RATIO_GUARD)
