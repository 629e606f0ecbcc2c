"""Per-example losses: cross-entropy, Equations 4, 5 and 6, and others' own.

All are functions of logits and attention maps; nothing here knows of models,
batches on several devices, or weights of a sum.
"""

from collections.abc import Mapping

import tensorflow as tf

from atat_tf.errors import InputError, expect_known

# Added to the denominator of both ratios, as their authors do: without effect
# on logits that differ, and 0 / 0 is 0 where all are equal.
_RATIO_GUARD = 1e-12


def cross_entropy(
    labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0
) -> tf.Tensor:
    """Returns L_ce = -log softmax(logits)[label] (§2.2) for each example.

    With smoothing s the label counts 1 − s, and every class s / k more:
    (1 − s) · L_ce + s · mean_j −log softmax(logits)[j] (Szegedy et al. 2016).

    Args:
      labels: integers [b], class indices; or float [b, k], shares of the
        classes that sum to 1, with −Σ_j y_j log softmax(logits)[j].
      logits: float [b, k], unnormalised scores.
      smoothing: s, in [0, 1).

    Returns:
      [b], the dtype of the logits, in nats, >= 0.
    """
    labels = tf.convert_to_tensor(labels)  # those of figures are NumPy's
    if labels.shape.rank == 2:
        of_label = tf.nn.softmax_cross_entropy_with_logits(
            labels=tf.cast(labels, logits.dtype), logits=logits
        )
    else:
        of_label = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=labels, logits=logits
        )
    if not smoothing:
        return of_label
    of_all = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
    return (1.0 - smoothing) * of_label + smoothing * of_all


def classes(labels: tf.Tensor) -> tf.Tensor:
    """Returns the class of each label: itself, or that of the largest share.

    Args:
      labels: integers [b], or shares of the classes, float [b, k].

    Returns:
      integers [b].
    """
    if len(labels.shape) == 2:
        return tf.argmax(labels, axis=-1, output_type=tf.int32)
    return labels


def safe_norm(x: tf.Tensor) -> tf.Tensor:
    """Returns ‖v(x)‖_2 for each example, with gradient 0 where x is 0.

    `tf.norm` has a NaN gradient at zero, and zero occurs: the student starts
    as a copy of the teacher, and ReLU can empty two maps. Up to 1e-12 the value
    itself is 0 too.

    Args:
      x: float [b, ...], vectorised over all but the first axis.

    Returns:
      [b], the dtype of x, >= 0.
    """
    squared = tf.reduce_sum(tf.square(x), axis=list(range(1, x.shape.rank)))
    is_zero = squared <= tf.cast(1e-12, squared.dtype) ** 2
    # The guard goes inside the root: `where` alone would still multiply the
    # infinite derivative of the root at zero by zero.
    root = tf.sqrt(tf.where(is_zero, tf.ones_like(squared), squared))
    return tf.where(is_zero, tf.zeros_like(squared), root)


def map_norm(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns ‖v(first) − v(second)‖_2 for each example: Eq. 4 of a layer.

    Args:
      first: float [b, h, w], attention maps.
      second: the same shape.

    Returns:
      [b], >= 0.
    """
    return safe_norm(first - second)


def map_rms(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns Eq. 4 of a layer as a root mean square over its positions.

    ‖v(first) − v(second)‖_2 / √(h · w): λ1 then means the same whatever the
    size of the maps. Arguments and result as for `map_norm`.
    """
    positions = first.shape[1] * first.shape[2]
    return safe_norm(first - second) / positions**0.5


def map_cosine(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns 1 − cos(v(first), v(second)) for each example.

    Where maps look, without how large they are. 1 where one map is empty, 0
    where both are, with gradient 0: an empty map has no direction. Arguments
    as for `map_norm`; the result is in [0, 1] for maps >= 0.
    """
    products = tf.reduce_sum(first * second, axis=(1, 2))
    first, second = safe_norm(first), safe_norm(second)
    cosine = tf.math.divide_no_nan(products, first * second)
    both_empty = (first == 0) & (second == 0)
    return tf.where(both_empty, tf.zeros_like(cosine), 1.0 - cosine)


MAP_DISTANCES = {"norm": map_norm, "cosine": map_cosine, "rms": map_rms}


def attention_distance(
    first: Mapping[str, tf.Tensor],
    second: Mapping[str, tf.Tensor],
    distance: str = "norm",
) -> tf.Tensor:
    """Returns the distance of two sets of attention maps for each example.

    Eq. 4: L_at = Σ_l ‖v(ATT_T^l(x1)) − v(ATT_S^l(x2))‖_2.

    Args:
      first: {layer: float [b, h, w]}, one entry for each layer l.
      second: the same layers and shapes.
      distance: of MAP_DISTANCES, what takes the norm's place.

    Returns:
      [b], >= 0.

    Raises:
      InputError: the two sets name different layers, or none, or there is no
        such distance.
    """
    if not first or set(first) != set(second):
        raise InputError(
            "Expected two non-empty sets of maps over the same layers. "
            f"Received: {sorted(first)} and {sorted(second)}."
        )
    expect_known("a distance of maps", distance, MAP_DISTANCES)
    of_layer = MAP_DISTANCES[distance]
    return tf.add_n([of_layer(first[k], second[k]) for k in sorted(first)])


def attention_transfer(
    teacher_clean: Mapping[str, tf.Tensor],
    student_adversarial: Mapping[str, tf.Tensor],
    student_clean: Mapping[str, tf.Tensor],
    distance: str = "norm",
) -> tf.Tensor:
    """Returns the attention-transfer loss for each example.

    Eq. 5: L_at = Σ_l ‖v(ATT_T^l(x_ori)) − v(ATT_S^l(x_adv))‖_2
                    + ‖v(ATT_T^l(x_ori)) − v(ATT_S^l(x_ori))‖_2.

    Args:
      teacher_clean: {layer: float [b, h, w]}, the teacher's maps on x_ori.
      student_adversarial: the student's maps on x_adv.
      student_clean: the student's maps on x_ori.
      distance: as for `attention_distance`.

    Returns:
      [b], >= 0.
    """
    return attention_distance(
        teacher_clean, student_adversarial, distance
    ) + attention_distance(teacher_clean, student_clean, distance)


def logit_pairing(
    clean_logits: tf.Tensor, adversarial_logits: tf.Tensor
) -> tf.Tensor:
    """Returns the logit-pairing loss for each example.

    Eq. 6: L_lp = ‖p_S(x_ori) − p_S(x_adv)‖_2, where p_S are logits. Its
    gradient has length 1 however small the difference is, so that it does not
    shrink what moves the logits under attack: it switches off all that gains
    less in L_ce than λ2 times the difference it makes.

    Args:
      clean_logits: float [b, k].
      adversarial_logits: float [b, k].

    Returns:
      [b], >= 0.
    """
    return safe_norm(clean_logits - adversarial_logits)


def squared_logit_pairing(
    clean_logits: tf.Tensor, adversarial_logits: tf.Tensor
) -> tf.Tensor:
    """Returns ½ · mean_j (z_j(x_ori) − z_j(x_adv))² for each example.

    The pairing of Kannan et al. 2018 as their code has it, and the released
    code of ATAT. Arguments and result as for `logit_pairing`.
    """
    return 0.5 * mean_squared_error(clean_logits, adversarial_logits)


def kl_divergence(clean_logits: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
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


PAIRINGS = {
    "norm": logit_pairing,
    "mse": squared_logit_pairing,
    "kl": kl_divergence,
}

# Of Zi et al. 2021: the share of the clean images in the distillation.
_CLEAN_SHARE = 1 / 6


def robust_distillation(
    teacher_logits: tf.Tensor,
    clean_logits: tf.Tensor,
    adversarial_logits: tf.Tensor,
) -> tf.Tensor:
    """Returns the distillation loss of RSLAD (Zi et al. 2021) for each example.

    ⅙ · KL(p_T(x_ori) ‖ p_S(x_ori)) + ⅚ · KL(p_T(x_ori) ‖ p_S(x_adv)): a
    robust teacher's prediction for the clean image is the target of both.

    Args:
      teacher_logits: float [b, k], on x_ori.
      clean_logits: the student's on x_ori.
      adversarial_logits: the student's on x_adv.

    Returns:
      [b], >= 0 up to rounding.
    """
    clean = kl_divergence(teacher_logits, clean_logits)
    adversarial = kl_divergence(teacher_logits, adversarial_logits)
    return _CLEAN_SHARE * clean + (1.0 - _CLEAN_SHARE) * adversarial


def mean_squared_error(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns the mean of (first − second)² for each example.

    Args:
      first: float [b, ...].
      second: the same shape.

    Returns:
      [b], >= 0; its mean over the batch is the mean over everything.
    """
    squared = tf.math.squared_difference(first, second)
    return tf.reduce_mean(squared, axis=list(range(1, squared.shape.rank)))


def strongest_other(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns argmax_{j≠y} z_j for each example: the class to beat.

    Args:
      labels: integers [b].
      logits: float [b, k].

    Returns:
      int32 [b]; the first of equal ones.
    """
    return tf.argmax(_without_label(labels, logits), -1, tf.int32)


def margin(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns z_y − max_{j≠y} z_j for each example: negative when wrong.

    Args:
      labels: integers [b].
      logits: float [b, k].

    Returns:
      [b], the dtype of the logits.
    """
    of_label = tf.gather(logits, labels, axis=-1, batch_dims=1)
    others = _without_label(labels, logits)
    return of_label - tf.reduce_max(others, axis=-1)


def verdict_margin(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the margin as a verdict counts it, > 0 exactly when right.

    An image is classified right where the label's score is finite and strictly
    the largest. A tie has the margin 0. A NaN anywhere, and an infinite score
    that decides, have the lowest number there is: no verdict rests on them.

    Args:
      labels: integers [b].
      logits: float [b, k].

    Returns:
      [b], the dtype of the logits, never NaN.
    """
    logits = tf.convert_to_tensor(logits)
    of_label = tf.gather(logits, labels, axis=-1, batch_dims=1)
    is_number = tf.math.is_finite(of_label) & ~tf.reduce_any(
        tf.math.is_nan(logits), axis=-1
    )
    return tf.where(
        is_number,
        tf.maximum(margin(labels, logits), logits.dtype.min),
        logits.dtype.min,
    )


def is_right(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns whether each image is classified right, see `verdict_margin`.

    Every accuracy is the share of images for which this holds.

    Args:
      labels: integers [b].
      logits: float [b, k].

    Returns:
      bool [b].
    """
    return verdict_margin(labels, logits) > 0


def predicted(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the class that counts as predicted: the label only when right.

    Args:
      labels: integers [b].
      logits: float [b, k].

    Returns:
      int32 [b], the label where `is_right`, else the strongest other class.
    """
    logits = tf.convert_to_tensor(logits)
    return tf.where(
        is_right(labels, logits),
        tf.cast(labels, tf.int32),
        strongest_other(labels, logits),
    )


def _without_label(labels, logits):
    is_label = tf.one_hot(labels, tf.shape(logits)[-1], True, False, dtype=bool)
    return tf.where(is_label, logits.dtype.min, logits)


def targeted_margin(
    labels: tf.Tensor, targets: tf.Tensor, logits: tf.Tensor
) -> tf.Tensor:
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


def dlr(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
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


def targeted_dlr(
    labels: tf.Tensor, targets: tf.Tensor, logits: tf.Tensor
) -> tf.Tensor:
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
