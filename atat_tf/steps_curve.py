"""Accuracy against the number of PGD steps (Fig. 8), from a run's ledger.

The attack of n steps goes the first n steps of the attack of more, from the
same random start, and all points on its way are judged: one attack of the
most steps, with the step at which each image broke, has the whole curve.
"""

import numpy as np

from atat_tf import attacks, columns, evaluation, gate
from atat_tf.errors import expect
from atat_tf.verdicts import CLEAN

# §4.3: the ball and the step are fixed, the number of steps varies.
EPSILON = 8 / 255
STEP_SIZE = 2 / 255


def curve(workdir, num_steps=100, **arguments):
    """Returns the accuracy of a run after each number of PGD steps.

    Verdicts are taken from the run's ledger, and what is missing is run and
    added to it; a killed call goes on where it was.

    Args:
      workdir: the run folder.
      num_steps: the most steps.
      **arguments: as for `evaluation.open_run`.

    Returns:
      float [num_steps + 1]: shares of the images that are right when clean,
      and after 1, 2, ... steps; and the OpenRun that they come from.

    Raises:
      InputError: no run there, or one that cannot be judged.
    """
    expect(num_steps >= 1, "num_steps >= 1", num_steps=num_steps)
    run = evaluation.open_run(workdir, **arguments)
    gate.expect_passed(run.attacker, run.split.images)
    attack = attacks.Steps(attacks.pgd(EPSILON, STEP_SIZE, num_steps))
    evaluation.standing(run, {f"pgd{num_steps}": (attack,)}, "attacking")
    clean = run.ledger.verdicts(CLEAN)
    attacked = run.ledger.verdicts(columns.description(attack))
    survived = [
        _survived(clean[i], attacked.get(i), num_steps)
        for i in range(len(run.split))
    ]
    return accuracies(survived, num_steps), run


def accuracies(survived, num_steps):
    """Returns the share of images that stand after 0, 1, ..., n steps.

    Args:
      survived: integers [n], the most steps that each image withstands; -1
        where it is wrong when clean.
      num_steps: n.
    """
    steps = np.arange(num_steps + 1)
    return (np.asarray(survived)[:, np.newaxis] >= steps).mean(0)


def _survived(clean, attacked, num_steps):
    if clean["broken"]:
        return -1
    if not attacked["broken"]:
        return num_steps
    # Broken at the random start: PGD of one step already comes by it.
    return max(attacked["step"], 1) - 1
