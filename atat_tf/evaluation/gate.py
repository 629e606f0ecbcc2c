"""What must hold of a classifier before a number about it is written down.

Each check returns a sentence about what is wrong, or None; `expect_passed`
raises the first. The same functions make points of the checklist.
"""

import numpy as np

from atat_tf.errors import InputError
from atat_tf.models import checks

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
        checks.not_logits(logits),
        not_repeatable(attacker, sample, logits),
        batch_dependent(attacker, sample, logits),
    ):
        if sentence:
            raise InputError(sentence)


def not_repeatable(attacker, images, logits):
    """Returns what is wrong if the same images get other logits, or None."""
    difference = checks.relative_difference(attacker.logits(images), logits)
    if difference <= checks.AGREEMENT:
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
    difference = checks.relative_difference(alone, logits)
    if difference <= checks.AGREEMENT:
        return None
    return (
        "Expected an image's logits alone to equal those in a batch. Received: "
        f"a relative difference of {difference:.2g}, as of batch norm in "
        "training mode (bn_eval=batch evaluates so, and marks it)."
    )
