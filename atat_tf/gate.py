"""What must hold of a classifier before a number about it is written down.

Each check returns a sentence about what is wrong, or None; `expect_passed`
raises the first. The same functions make points of the checklist.
"""

import numpy as np

from atat_tf.errors import InputError

AGREEMENT = 1e-4
_SAMPLE = 32


def expect_passed(attacker, images):
    """Raises InputError unless the classifier can be judged image by image.

    Args:
      attacker: Attacker, with frozen statistics.
      images: uint8 [n, H, W, C], of which some are tried.
    """
    sample = images[:_SAMPLE]
    logits = attacker.logits(sample)
    for sentence in (
        not_logits(logits),
        not_repeatable(attacker, sample, logits),
        batch_dependent(attacker, sample, logits),
    ):
        if sentence:
            raise InputError(sentence)


def not_logits(logits):
    """Returns what is wrong with outputs [n, k] as logits, or None."""
    if logits.ndim != 2 or logits.shape[1] < 2:
        return (
            "Expected logits of at least 2 classes, [n, k]. Received: outputs "
            f"of shape {list(logits.shape)}."
        )
    if not np.all(np.isfinite(logits)):
        return (
            "Expected finite logits. Received: a NaN or an infinity; no attack "
            "can be judged by it."
        )
    if are_probabilities(logits):
        return (
            "Expected logits. Received: outputs in [0, 1] that sum to 1, as "
            "after a softmax, which hides gradients: take it off."
        )
    return None


def are_probabilities(outputs):
    """Returns whether outputs [n, k] look like those of a softmax."""
    inside = np.all((outputs >= 0) & (outputs <= 1))
    return bool(inside and np.allclose(outputs.sum(-1), 1, atol=1e-3))


def not_repeatable(attacker, images, logits):
    """Returns what is wrong if the same images get other logits, or None."""
    difference = relative_difference(attacker.logits(images), logits)
    if difference <= AGREEMENT:
        return None
    return (
        "Expected the same logits for the same images. Received: a relative "
        f"difference of {difference:.2g}, as of random layers; accuracies "
        "under attack would be chance."
    )


def batch_dependent(attacker, images, logits):
    """Returns what is wrong if a batch changes an image's logits, or None."""
    alone = np.concatenate(
        [attacker.logits(images[i : i + 1]) for i in range(len(images))]
    )
    difference = relative_difference(alone, logits)
    if difference <= AGREEMENT:
        return None
    return (
        "Expected an image's logits alone to equal those in a batch. Received: "
        f"a relative difference of {difference:.2g}, as of batch norm in "
        "training mode (bn_eval=batch evaluates so, and marks it)."
    )


def relative_difference(here, there):
    """Returns the largest difference over the largest value `there`."""
    scale = np.max(np.abs(there))
    return float(np.max(np.abs(here - there)) / max(scale, 1e-12))
