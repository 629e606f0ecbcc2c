"""PGD at weight 0; its signs pull the map to the clean one or push it away."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import attention, losses
from atat_tf.attacks import columns, linf, on_attention
from atat_tf.errors import InputError
from atat_tf.evaluation import attacker as attacker_lib
from atat_tf.models import graphs
from tests.support import toys

_EPSILON, _STEP = 8 / 255, 2 / 255
_LAYERS = ("hidden", "features")


def _attack(classifier, weight, num_steps=5, layers=_LAYERS, **kwargs):
    maps = on_attention.logits_and_maps_function(classifier, layers)
    return on_attention.AttentionAttack(
        _EPSILON, _STEP, num_steps, weight, maps, **kwargs
    )


def _images(count=24):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, *toys.IMAGE_SHAPE), np.uint8)


def _last_points(attack, classifier, images, labels):
    """Returns the state after all steps, none taken out on the way."""
    logits_fn = toys.inference(classifier)
    seeds = toys.seeds(len(images))
    state = attack.start(logits_fn, images, labels, seeds)
    for index in range(attack.num_steps):
        state = attack.step(logits_fn, state, tf.constant(index))
    return state


class AttentionAttackTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.classifier = toys.small_classifier()
        self.images = tf.constant(_images() / np.float32(255))
        self.labels = toys.random_labels(24)

    def _distance(self, points):
        tapped = graphs.with_taps(self.classifier, _LAYERS)
        maps = [
            attention.logits_and_attention(tapped, at, self.labels)[1]
            for at in (points, self.images)
        ]
        return losses.attention_distance(*maps).numpy()

    def test_weight_zero_is_pgd(self):
        images = _images()
        labels = self.labels.numpy()
        runner = attacker_lib.Attacker(self.classifier, 8)
        adapted, plain = (
            runner.run(attack, images, labels, np.arange(24), np.int64(3))
            for attack in (
                _attack(self.classifier, 0.0),
                linf.Steps(linf.pgd(_EPSILON, _STEP, 5)),
            )
        )
        self.assertAllEqual(adapted.broke_at, plain.broke_at)
        self.assertAllClose(adapted.adversarial, plain.adversarial)
        self.assertAllClose(adapted.margin, plain.margin, 1e-5, 1e-5)

    def test_the_sign_of_the_weight_moves_the_map(self):
        pulled, plain, pushed = (
            np.mean(
                self._distance(
                    _last_points(
                        _attack(self.classifier, weight, 20),
                        self.classifier,
                        self.images,
                        self.labels,
                    )["point"]
                )
            )
            for weight in (30.0, 0.0, -30.0)
        )
        self.assertLess(pulled, 0.5 * plain)
        # A falling score of the class drives its map away by itself.
        self.assertGreater(pushed, 1.1 * plain)

    def test_a_step_climbs_the_formula(self):
        weight, step = -2.0, 1e-4
        attack = on_attention.AttentionAttack(
            _EPSILON,
            step,
            1,
            weight,
            on_attention.logits_and_maps_function(self.classifier, _LAYERS),
        )
        logits_fn = toys.inference(self.classifier)
        state = attack.start(
            logits_fn, self.images, self.labels, toys.seeds(24)
        )
        before = state["point"]
        after = attack.step(logits_fn, state, tf.constant(0))["point"]

        def value(points):
            cross_entropy = losses.cross_entropy(self.labels, logits_fn(points))
            return cross_entropy.numpy() - weight * self._distance(points)

        # Along the signs the rise is step · ‖gradient‖_1 to first order, and
        # the gradient is measured by a step to the other side.
        rise = value(after) - value(before)
        fall = value(before) - value(2 * before - after)
        self.assertTrue(np.all(rise > 0))
        self.assertAllClose(rise, fall, rtol=0.2, atol=1e-3)

    def test_the_clean_image_has_no_distance(self):
        attack = _attack(self.classifier, 1.0, 1, random_start=False)
        state = _last_points(attack, self.classifier, self.images, self.labels)
        # There the gradient of the distance is 0, and the step is PGD's.
        plain = linf.ifgsm(_EPSILON, _STEP, 1)
        expected = plain(
            toys.inference(self.classifier), self.images, self.labels, None
        )
        self.assertAllClose(state["point"], expected)

    def test_its_description_tells_weight_and_layers(self):
        one = columns.description(_attack(self.classifier, 0.1))
        self.assertIn("weight=0.1", one)
        self.assertIn("epsilon=8/255", one)
        self.assertIn("maps_at_hidden+features", one)
        self.assertNotEqual(
            one, columns.description(_attack(self.classifier, -0.1))
        )

    def test_bad_arguments(self):
        with self.assertRaisesRegex(InputError, "num_steps >= 1"):
            _attack(self.classifier, 1.0, num_steps=0)
        with self.assertRaisesRegex(InputError, "hidden, features"):
            _attack(self.classifier, 1.0, layers=("nowhere",))


if __name__ == "__main__":
    tf.test.main()
