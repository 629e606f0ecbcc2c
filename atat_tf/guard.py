"""A guard against catastrophic overfitting in adversarial training.

Accuracies of validation images under a multi-step attack enter, one an epoch;
whether the last of them has collapsed leaves. Networks trained with one-step
attacks can lose within an epoch what they had against any other attack, while
their training accuracy rises (Wong et al. 2020).
"""

# "stop" ends the training with an error, "rollback" with the best weights.
GUARDS = ("off", "stop", "rollback")


def has_collapsed(scores, share):
    """Returns whether the last score is below a share of the best before it.

    Args:
      scores: accuracies in [0, 1], one an epoch, in order.
      share: of the best, in (0, 1).
    """
    return len(scores) > 1 and scores[-1] < share * max(scores[:-1])


def report(scores):
    """Returns a sentence on a collapse in the last epoch."""
    best = max(scores)
    return (
        f"Validation accuracy under PGD has collapsed: "
        f"{100 * scores[-1]:.1f} % in epoch {len(scores)}, after "
        f"{100 * best:.1f} % in epoch {scores.index(best) + 1}, whose weights "
        "are kept as the best."
    )
