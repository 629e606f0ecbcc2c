"""PGD at weight 0; its signs pull the map to the clean one or push it away."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import grad_cam, losses
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


class AttentionAttackTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.classifier = toys.small_classifier()
        self.images = tf.constant(toys.random_bytes(24) / np.float32(255))
        self.labels = toys.random_labels(24)

    @parameterized.parameters(
        ("logit", "maps_at_hidden+features"),
        ("margin", "margin_maps_at_hidden+features"),
    )
    def test_maps_are_of_the_score_that_is_asked_for(self, score, name):
        maps = on_attention.logits_and_maps_function(
            self.classifier, _LAYERS, score
        )
        self.assertEqual(maps.__name__, name)
        _, expected = grad_cam.logits_and_attention(
            graphs.with_taps(self.classifier, _LAYERS),
            self.images,
            self.labels,
            score=score,
        )
        found = maps(self.images, self.labels)[1]
        for layer in _LAYERS:
            self.assertAllClose(found[layer], expected[layer], 1e-5, 1e-6)

    def _last_point(self, weight, num_steps, **fields):
        """Returns the point after all steps, none taken out on the way."""
        return toys.last_state(
            _attack(self.classifier, weight, num_steps, **fields),
            toys.inference(self.classifier),
            self.images,
            self.labels,
        )["point"]

    def _distance(self, points):
        tapped = graphs.with_taps(self.classifier, _LAYERS)
        maps = [
            grad_cam.logits_and_attention(
                tapped, tf.convert_to_tensor(at), self.labels
            )[1]
            for at in (points, self.images)
        ]
        return losses.attention_distance(*maps).numpy()

    def test_weight_zero_is_pgd(self):
        images = toys.random_bytes(24)
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
            np.mean(self._distance(self._last_point(weight, 20)))
            for weight in (30.0, 0.0, -30.0)
        )
        self.assertLess(pulled, 0.5 * plain)
        # A falling score of the class drives its map away by itself.
        self.assertGreater(pushed, 1.1 * plain)

    def test_a_step_climbs_the_formula(self):
        weight, step = -2.0, 1e-4
        attack = dataclasses.replace(
            _attack(self.classifier, weight, 1), step_size=step
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
        point = self._last_point(1.0, 1, random_start=False)
        # There the gradient of the distance is 0, and the step is PGD's.
        plain = linf.ifgsm(_EPSILON, _STEP, 1)
        expected = plain(
            toys.inference(self.classifier), self.images, self.labels, None
        )
        self.assertAllClose(point, expected)

    def test_its_description_tells_weight_and_layers(self):
        one = columns.description(_attack(self.classifier, 0.1))
        self.assertIn("weight=0.1", one)
        self.assertIn("epsilon=8/255", one)
        self.assertIn("maps_at_hidden+features", one)
        self.assertNotEqual(
            one, columns.description(_attack(self.classifier, -0.1))
        )

    def test_a_layer_without_a_gradient_is_refused(self):
        """The scores are the network's, their gradient is another model's."""
        inputs = self.classifier.inputs[0]
        scores = self.classifier.output
        linear = keras.layers.Dense(5)(keras.layers.Flatten()(inputs))
        stop = keras.ops.stop_gradient
        logits = stop(scores) + linear - stop(linear)
        classifier = keras.Model(inputs, logits)
        with self.assertRaisesRegex(InputError, "gradient to the layer 'feat"):
            _attack(classifier, 1.0, layers=("features",))

    def test_unknown_layers_are_refused(self):
        with self.assertRaisesRegex(InputError, "hidden, features"):
            _attack(self.classifier, 1.0, layers=("nowhere",))
