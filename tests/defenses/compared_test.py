"""TLA and TRADES against their papers' formulas, in NumPy."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.defenses import atat, compared
from atat_tf.errors import InputError
from atat_tf.models import graphs
from tests.support import toys

BATCH = 6
_LABELS = np.array([0, 1, 0, 2, 1, 0])


def _log_softmax(logits):
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def _cross_entropy(logits):
    return -_log_softmax(logits)[np.arange(BATCH), _LABELS]


def _distance(u, v):
    return 1 - abs(u @ v) / np.sqrt((u @ u) * (v @ v))


class ComparedTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.student = toys.small_classifier(seed=1)
        self.images = toys.random_images(BATCH)
        noise = toys.random_images(BATCH, seed=9)
        self.adversarial = tf.clip_by_value(
            self.images + 0.2 * (noise - 0.5), 0.0, 1.0
        )

    def _objective(self, defense):
        return defense(
            graphs.with_taps(self.student, defense.layers),
            None,
            self.images,
            self.adversarial,
            tf.constant(_LABELS),
        )

    def _gradients(self, defense):
        variables = [v.value for v in self.student.trainable_variables]
        with tf.GradientTape() as tape:
            loss = self._objective(defense).loss
        return tape.gradient(loss, variables)

    def _outputs(self):
        """Clean and adversarial features and logits of one training pass."""
        taps = graphs.with_taps(self.student, ("features",))
        mixture = tf.concat([self.images, self.adversarial], axis=0)
        outputs = taps(mixture, training=True)
        features = outputs["features"].numpy()
        logits = outputs["logits"].numpy()
        return (
            (features[:BATCH], logits[:BATCH]),
            (features[BATCH:], logits[BATCH:]),
        )

    def _assert_same_gradients(self, first, second):
        for one, other in zip(
            self._gradients(first), self._gradients(second), strict=True
        ):
            self.assertAllClose(one, other, 1e-5, 1e-6)


class TLATest(ComparedTest):
    def test_equals_numpy_twin(self):
        """Mao et al. 2019: L_ce(x_adv) + λ1 L_trip + λ2 L_norm."""
        defense = compared.TLA(1.5, 0.25, 0.2)
        objective = self._objective(defense)
        (features, _), (attacked_features, attacked) = self._outputs()
        clean = features.mean(axis=(1, 2))
        anchors = attacked_features.mean(axis=(1, 2))
        # The next of its class; 3 is alone in its own.
        positives = [2, 4, 5, 3, 1, 0]
        triplet, norm = np.zeros(BATCH), np.zeros(BATCH)
        for i, positive in enumerate(positives):
            to_others = {
                j: _distance(anchors[i], clean[j])
                for j in range(BATCH)
                if _LABELS[j] != _LABELS[i]
            }
            nearest = min(to_others, key=to_others.get)
            to_positive = _distance(anchors[i], clean[positive])
            triplet[i] = max(to_positive - to_others[nearest] + 0.2, 0)
            members = anchors[i], clean[positive], clean[nearest]
            norm[i] = sum(np.sqrt(h @ h) for h in members)
        expected = {
            "cross_entropy": _cross_entropy(attacked),
            "triplet": triplet,
            "embedding_norm": norm,
        }
        self.assertCountEqual(objective.terms, expected)
        for name, values in expected.items():
            self.assertGreater(np.max(values), 0.0)
            self.assertAllClose(objective.terms[name], values, 1e-4, 1e-5)
        total = expected["cross_entropy"] + 1.5 * triplet + 0.25 * norm
        self.assertAllClose(objective.loss, total, 1e-4, 1e-5)

    def test_the_embedding_is_what_the_logits_are_made_of(self):
        (features, logits), _ = self._outputs()
        kernel, bias = self.student.get_layer("logits").get_weights()
        self.assertAllClose(
            features.mean(axis=(1, 2)) @ kernel + bias, logits, 1e-4, 1e-5
        )

    def test_without_its_terms_it_is_at(self):
        self._assert_same_gradients(
            compared.TLA(0.0, 0.0, clean_weight=0.3),
            atat.AdversarialTraining(clean_weight=0.3),
        )

    def test_another_layer(self):
        hidden = compared.TLA(layers=("hidden",))
        features = compared.TLA()
        norms = [
            self._objective(defense).terms["embedding_norm"]
            for defense in (hidden, features)
        ]
        self.assertGreater(np.min(np.abs(norms[0] - norms[1])), 1e-3)


class TRADESTest(ComparedTest):
    def test_equals_numpy_twin(self):
        """Zhang et al. 2019: L_ce(x) + β KL(p(x) ‖ p(x_adv))."""
        objective = self._objective(compared.TRADES(3.0))
        (_, clean), (_, attacked) = self._outputs()
        log_p, log_q = _log_softmax(clean), _log_softmax(attacked)
        divergence = np.sum(np.exp(log_p) * (log_p - log_q), axis=1)
        self.assertGreater(np.min(divergence), 1e-5)
        self.assertAllClose(
            objective.terms["kl_divergence"], divergence, 1e-4, 1e-6
        )
        self.assertAllClose(
            objective.loss, _cross_entropy(clean) + 3 * divergence, 1e-4, 1e-5
        )

    def test_both_sides_of_the_divergence_are_trained(self):
        """The gradient equals that of L_ce, of KL by p and of KL by q."""
        gradients = self._gradients(compared.TRADES(3.0))
        taps = graphs.with_taps(self.student, ())
        mixture = tf.concat([self.images, self.adversarial], axis=0)
        variables = [v.value for v in self.student.trainable_variables]
        with tf.GradientTape() as tape:
            logits = taps(mixture, training=True)["logits"]
            p = tf.nn.softmax(logits[:BATCH])
            q = tf.nn.softmax(logits[BATCH:])
            kl = tf.reduce_sum(p * tf.math.log(p / q), axis=1)
            true = tf.gather(p, _LABELS, axis=1, batch_dims=1)
            loss = -tf.math.log(true) + 3.0 * kl
        for one, other in zip(
            gradients, tape.gradient(loss, variables), strict=True
        ):
            self.assertAllClose(one, other, 1e-4, 1e-5)

    def test_equal_images_leave_clean_cross_entropy(self):
        self.student = toys.small_classifier(seed=1, norm=False)
        self.adversarial = self.images
        self._assert_same_gradients(compared.TRADES(), atat.Standard())

    def test_labels_are_not_read_by_the_robust_term(self):
        defense = compared.TRADES()
        before = self._objective(defense).terms["kl_divergence"]
        other = defense(
            graphs.with_taps(self.student, ()),
            None,
            self.images,
            self.adversarial,
            tf.constant((_LABELS + 1) % 3),
        ).terms["kl_divergence"]
        self.assertAllClose(before, other, 1e-6, 1e-7)


class ConstructorTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ("tla", {"triplet_weight": -1.0}, "triplet_weight >= 0.*-1.0"),
        ("tla", {"norm_weight": -1.0}, "norm_weight >= 0.*-1.0"),
        ("tla", {"margin": 1.5}, r"margin in \[0, 1\].*margin=1.5"),
        ("tla", {"clean_weight": 1.0}, r"\[0, 1\).*clean_weight=1.0"),
        ("tla", {"layers": ()}, r"one layer.*layers=\(\)"),
        ("tla", {"layers": ("a", "b")}, "one layer.*'a', 'b'"),
        ("trades", {"robust_weight": -6.0}, "robust_weight >= 0.*-6.0"),
    )
    def test_rules(self, name, fields, message):
        with self.assertRaisesRegex(InputError, f"Expected .*{message}"):
            atat.DEFENSES[name](**fields)


if __name__ == "__main__":
    tf.test.main()
