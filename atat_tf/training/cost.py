"""What a training step costs, in forward passes an image."""

import ml_collections

from atat_tf.attacks import for_training
from atat_tf.defenses import atat
from atat_tf.runs import build


def passes_per_image(config: ml_collections.ConfigDict) -> int:
    """Returns a training step's cost for an image, in forward passes.

    A gradient to the images costs one more than the forward pass, one to the
    weights too costs two more.

    Args:
      config: resolved.
    """
    defense = build.build_defense(config)
    if not defense.needs_attack:
        return 3
    # Of all, only adversarial training may leave the clean images out.
    alone = (
        isinstance(defense, atat.AdversarialTraining)
        and defense.clean_weight == 0
    )
    attack = build.build_attack(config)
    before = isinstance(attack, for_training.KLAttack)
    passes = before + 2 * attack.num_steps
    step = defense.needs_teacher + (3 if alone else 6)
    # Perturbing the weights takes the loss and its gradient once more.
    return passes + step * (2 if config.weight_perturbation else 1)
