"""TLA and TRADES against their papers' formulas, in NumPy."""

import numpy as np
import tensorflow as tf

from atat_tf.defenses import compared
from atat_tf.models import graphs
from tests.defenses import twins

_LABELS = np.array([0, 1, 0, 2, 1, 0])  # the 2 has no positive
BATCH = len(_LABELS)


class ComparedTest(twins.DefenseTestCase):
    labels = tf.constant(_LABELS)

    def _outputs(self):
        """Clean and adversarial features and logits of one training pass."""
        features, logits = self.student_pass(self.mixture)
        return (
            (features[:BATCH], logits[:BATCH]),
            (features[BATCH:], logits[BATCH:]),
        )


class TLATest(ComparedTest):
    def test_equals_numpy_twin(self):
        """Mao et al. 2019: L_ce(x_adv) + λ1 L_trip + λ2 L_norm."""
        defense = compared.TLA(1.5, 0.25, 0.2)
        objective = self.objective(defense)
        (features, _), (attacked_features, attacked) = self._outputs()
        clean = features.mean(axis=(1, 2))
        anchors = attacked_features.mean(axis=(1, 2))
        triplet, norm = twins.triplet_terms(_LABELS, anchors, clean, 0.2)
        expected = {
            "cross_entropy": twins.cross_entropy(_LABELS, attacked),
            "triplet": triplet,
            "embedding_norm": norm,
        }
        self.assertCountEqual(objective.terms, expected)
        for name, values in expected.items():
            self.assertGreater(np.max(values), 0.0)
            self.assertAllClose(objective.terms[name], values, 1e-4, 1e-5)
        total = expected["cross_entropy"] + 1.5 * triplet + 0.25 * norm
        self.assertAllClose(objective.loss, total, 1e-4, 1e-5)

    def test_another_layer(self):
        hidden = compared.TLA(layers=("hidden",))
        features = compared.TLA()
        norms = [
            self.objective(defense).terms["embedding_norm"]
            for defense in (hidden, features)
        ]
        self.assertGreater(np.min(np.abs(norms[0] - norms[1])), 1e-3)


class TRADESTest(ComparedTest):
    def test_equals_numpy_twin(self):
        """Zhang et al. 2019: L_ce(x) + β KL(p(x) ‖ p(x_adv))."""
        objective = self.objective(compared.TRADES(3.0))
        (_, clean), (_, attacked) = self._outputs()
        log_p, log_q = twins.log_softmax(clean), twins.log_softmax(attacked)
        divergence = np.sum(np.exp(log_p) * (log_p - log_q), axis=1)
        self.assertGreater(np.min(divergence), 1e-5)
        self.assertAllClose(
            objective.terms["kl_divergence"], divergence, 1e-4, 1e-6
        )
        self.assertAllClose(
            objective.loss,
            twins.cross_entropy(_LABELS, clean) + 3 * divergence,
            1e-4,
            1e-5,
        )

    def test_both_sides_of_the_divergence_are_trained(self):
        """The gradient equals that of L_ce, of KL by p and of KL by q."""
        gradients = self.loss_and_gradients(compared.TRADES(3.0))[1]
        taps = graphs.with_taps(self.student, ())
        variables = [v.value for v in self.student.trainable_variables]
        with tf.GradientTape() as tape:
            logits = taps(self.mixture, training=True)["logits"]
            p = tf.nn.softmax(logits[:BATCH])
            q = tf.nn.softmax(logits[BATCH:])
            kl = tf.reduce_sum(p * tf.math.log(p / q), axis=1)
            true = tf.gather(p, _LABELS, axis=1, batch_dims=1)
            loss = -tf.math.log(true) + 3.0 * kl
        for one, other in zip(
            gradients, tape.gradient(loss, variables), strict=True
        ):
            self.assertAllClose(one, other, 1e-4, 1e-5)
