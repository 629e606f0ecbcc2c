"""What tests of defenses share: networks, images, and formulas in NumPy."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.models import graphs
from tests.support import toys


def log_softmax(logits):
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def cross_entropy(labels, logits):
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def _distance(u, v):
    return 1 - abs(sum(u * v)) / (sum(u * u) ** 0.5 * sum(v * v) ** 0.5)


def triplet_terms(labels, anchors, clean, margin):
    """Mao et al.'s two terms in loops, for each anchor."""
    count = len(labels)
    triplet, norm = np.zeros(count), np.zeros(count)
    for i in range(count):
        after = [(i + k) % count for k in range(1, count + 1)]
        positive = next(j for j in after if labels[j] == labels[i])
        others = [j for j in range(count) if labels[j] != labels[i]]
        members = [anchors[i], clean[positive]]
        if others:
            distances = [_distance(anchors[i], clean[j]) for j in others]
            difference = _distance(anchors[i], clean[positive]) - min(distances)
            triplet[i] = max(difference + margin, 0)
            members.append(clean[others[int(np.argmin(distances))]])
        norm[i] = sum(float(np.sum(h * h)) ** 0.5 for h in members)
    return triplet, norm


class DefenseTestCase(parameterized.TestCase, tf.test.TestCase):
    """A student, a teacher, and a batch of images with adversarial ones."""

    labels = toys.random_labels(4)

    def setUp(self):
        super().setUp()
        self.student = toys.small_classifier(seed=1)
        self.teacher = toys.small_classifier(seed=2)
        self.teacher.trainable = False
        self.images = toys.random_images(len(self.labels))
        noise = toys.random_images(len(self.labels), seed=9)
        self.adversarial = tf.clip_by_value(
            self.images + 0.2 * (noise - 0.5), 0.0, 1.0
        )

    @property
    def mixture(self):
        """The batch of the one pass of a student."""
        return tf.concat([self.images, self.adversarial], axis=0)

    def student_pass(self, images):
        """Returns activations and logits in training mode, as arrays."""
        taps = graphs.with_taps(self.student, ("features",))
        outputs = taps(images, training=True)
        return outputs["features"].numpy(), outputs["logits"].numpy()

    def objective(self, defense, **progress):
        return defense(
            graphs.with_taps(self.student, defense.layers),
            graphs.with_taps(self.teacher, defense.layers),
            self.images,
            self.adversarial,
            self.labels,
            **progress,
        )

    def loss_and_gradients(self, defense):
        variables = [v.value for v in self.student.trainable_variables]
        with tf.GradientTape() as tape:
            loss = self.objective(defense).loss
        return loss, tape.gradient(loss, variables)

    def assert_same(self, first, second):
        """Asserts that two defenses have the same losses and gradients."""
        loss, gradients = self.loss_and_gradients(first)
        other_loss, other_gradients = self.loss_and_gradients(second)
        self.assertAllClose(loss, other_loss, 1e-6, 1e-6)
        for one, other in zip(gradients, other_gradients, strict=True):
            self.assertAllClose(one, other, 1e-5, 1e-6)
