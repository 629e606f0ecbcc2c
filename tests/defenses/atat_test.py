"""Eq. 7 and its neighbours: reductions, twins, who is moved, errors."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import losses
from atat_tf.defenses import atat, compared, objective
from atat_tf.errors import InputError
from atat_tf.models import graphs
from tests.support import toys

BATCH = 4


def _softmax_cross_entropy(labels, logits):
    logits = logits - logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(logits).sum(axis=1))
    return log_sums - logits[np.arange(len(labels)), labels]


def _norms(x):
    return np.sqrt(np.sum(np.square(x), axis=tuple(range(1, x.ndim))))


class DefenseTestCase(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.student = toys.small_classifier(seed=1)
        self.teacher = toys.small_classifier(seed=2)
        self.teacher.trainable = False
        self.images = toys.random_images(BATCH)
        noise = toys.random_images(BATCH, seed=9)
        self.adversarial = tf.clip_by_value(
            self.images + 0.2 * (noise - 0.5), 0.0, 1.0
        )
        self.labels = toys.random_labels(BATCH)

    def _objective(self, defense, images=None, adversarial=None, **progress):
        return defense(
            graphs.with_taps(self.student, defense.layers),
            graphs.with_taps(self.teacher, defense.layers),
            self.images if images is None else images,
            self.adversarial if adversarial is None else adversarial,
            self.labels,
            **progress,
        )

    def _loss_and_gradients(self, defense, **images):
        variables = [v.value for v in self.student.trainable_variables]
        with tf.GradientTape() as tape:
            loss = self._objective(defense, **images).loss
        return loss, tape.gradient(loss, variables)


class EveryDefenseTest(DefenseTestCase):
    @parameterized.parameters(*atat.DEFENSES)
    def test_objective_has_the_shapes_and_terms_it_names(self, name):
        defense = atat.DEFENSES[name]()
        objective = self._objective(defense)
        self.assertEqual(objective.loss.shape, [BATCH])
        self.assertCountEqual(objective.terms, defense.terms)
        for term in objective.terms.values():
            self.assertEqual(term.shape, [BATCH])
            self.assertAllGreaterEqual(term, 0.0)
        for logits in (objective.clean_logits, objective.adversarial_logits):
            if logits is not None:
                self.assertEqual(logits.shape, [BATCH, toys.NUM_CLASSES])
        self.assertEqual(
            objective.adversarial_logits is None, not defense.needs_attack
        )

    @parameterized.parameters(*atat.DEFENSES)
    def test_every_student_weight_gets_a_finite_gradient(self, name):
        _, gradients = self._loss_and_gradients(atat.DEFENSES[name]())
        for gradient in gradients:
            self.assertIsNotNone(gradient)
            self.assertTrue(np.all(np.isfinite(gradient)))
            self.assertGreater(np.max(np.abs(gradient)), 0.0)

    @parameterized.parameters(*atat.DEFENSES)
    def test_leaves_the_teacher_alone(self, name):
        # Unfrozen: a frozen batch norm would not move in any mode.
        self.teacher.trainable = True
        before = toys.values(self.teacher.variables)
        self._objective(atat.DEFENSES[name]())
        after = toys.values(self.teacher.variables)
        for old, new in zip(before, after, strict=True):
            self.assertAllEqual(old, new)

    def test_no_gradient_reaches_the_teacher(self):
        with tf.GradientTape() as tape:
            loss = self._objective(atat.ATAT()).loss
        variables = [v.value for v in self.teacher.variables]
        for gradient in tape.gradient(loss, variables):
            self.assertIsNone(gradient)

    @parameterized.parameters(*atat.DEFENSES)
    def test_the_teacher_is_read_only_where_it_is_needed(self, name):
        defense = atat.DEFENSES[name]()
        before = self._objective(defense).terms
        toys.randomise(self.teacher, seed=7)
        after = self._objective(defense).terms
        # In shares: one of released_cifar100's terms is tiny.
        moved = max(
            np.max(np.abs(after[term] / before[term] - 1))
            for term in before
            if np.all(before[term])
        )
        if defense.needs_teacher:
            self.assertGreater(moved, 1e-2)
        else:
            self.assertLess(moved, 1e-5)

    @parameterized.parameters(*atat.DEFENSES)
    def test_adversarial_images_are_read_only_where_attacked(self, name):
        defense = atat.DEFENSES[name]()
        loss = self._objective(defense).loss
        other = self._objective(defense, adversarial=1.0 - self.images).loss
        moved = np.max(np.abs(other - loss))
        if defense.needs_attack:
            self.assertGreater(moved, 1e-3)
        else:
            self.assertLess(moved, 1e-6)

    @parameterized.parameters(*atat.DEFENSES)
    def test_student_is_in_training_mode(self, name):
        # In training mode the loss does not read the moving statistics, and
        # one pass moves each of them.
        defense = atat.DEFENSES[name]()
        before = toys.values(self.student.non_trainable_variables)
        loss = self._objective(defense).loss
        after = toys.values(self.student.non_trainable_variables)
        for old, new in zip(before, after, strict=True):
            self.assertTrue(np.all(old != new))
        self.assertAllClose(self._objective(defense).loss, loss, 1e-6, 1e-6)

    @parameterized.parameters(*atat.DEFENSES)
    def test_compiled_equals_eager(self, name):
        defense = atat.DEFENSES[name]()
        compiled = tf.function(lambda: self._objective(defense).loss)
        self.assertAllClose(
            compiled(), self._objective(defense).loss, 1e-5, 1e-5
        )


class ReductionTest(DefenseTestCase):
    def _assert_same(self, first, second):
        loss, gradients = self._loss_and_gradients(first)
        other_loss, other_gradients = self._loss_and_gradients(second)
        self.assertAllClose(loss, other_loss, 1e-6, 1e-6)
        for one, other in zip(gradients, other_gradients, strict=True):
            self.assertAllClose(one, other, 1e-5, 1e-6)

    @parameterized.parameters((0.0, 0.5), (0.7, 0.3))
    def test_atat_without_attention_is_alp(self, logit_weight, clean_weight):
        self._assert_same(
            atat.ATAT(0.0, logit_weight, clean_weight),
            atat.LogitPairing(logit_weight, clean_weight),
        )

    @parameterized.parameters(0.5, 0.3)
    def test_alp_without_pairing_is_at(self, clean_weight):
        self._assert_same(
            atat.LogitPairing(0.0, clean_weight),
            atat.AdversarialTraining(clean_weight),
        )

    @parameterized.parameters(*losses.PAIRINGS)
    def test_atat_without_attention_is_that_pairing(self, pairing):
        self._assert_same(
            atat.ATAT(0.0, 0.7, 0.0, pairing=pairing),
            atat.LogitPairing(0.7, 0.0, pairing),
        )

    def test_kl_pairing_of_clean_images_is_trades(self):
        self._assert_same(
            atat.LogitPairing(6.0, 1.0, "kl"), compared.TRADES(6.0)
        )

    def test_two_classes_of_which_one_is_the_same_everywhere(self):
        """Two-class maps are the mean of each class's own Eq. 5."""
        both = self._objective(atat.ATAT(classes="two"))
        own = self._objective(atat.ATAT()).terms["attention_transfer"]
        labels = self.labels
        self.labels = losses.strongest_other(labels, both.adversarial_logits)
        other = self._objective(atat.ATAT()).terms["attention_transfer"]
        self.assertGreater(np.max(np.abs(own - other)), 1e-2)
        self.assertAllClose(
            both.terms["attention_transfer"], (own + other) / 2, 1e-5, 1e-6
        )

    def test_each_field_beyond_the_papers_matters(self):
        paper = self._objective(atat.ATAT()).loss
        for fields in (
            {"score": "centred"},
            {"score": "margin"},
            {"map_distance": "cosine"},
            {"map_distance": "rms"},
            {"pairing": "mse"},
            {"pairing": "kl"},
            {"classes": "two"},
            {"distillation": 0.5},
            {"label_smoothing": 0.1},
            {"attention_schedule": (0.5, 0.0)},
            {"logit_schedule": (0.5, 0.0)},
        ):
            loss = self._objective(atat.ATAT(**fields)).loss
            self.assertGreater(np.max(np.abs(loss - paper)), 1e-3, fields)

    @parameterized.parameters(
        # Half way up and at the top, then half way down and all but at 0.
        (0.1, 0.5),
        (0.2, 1.0),
        (0.6, 1.0),
        (0.8, 0.5),
    )
    def test_schedules(self, progress, factor):
        schedule = (0.2, 0.4)
        self.assertAllClose(objective.ramp(progress, schedule), factor)
        self.assertEqual(objective.ramp(progress, (0.0, 0.0)), 1.0)
        for paper, scheduled in (
            (
                atat.ATAT(0.7, 0.3),
                atat.ATAT(
                    0.7 / factor,
                    0.3 / factor,
                    attention_schedule=schedule,
                    logit_schedule=schedule,
                ),
            ),
            (
                atat.LogitPairing(0.3),
                atat.LogitPairing(0.3 / factor, logit_schedule=schedule),
            ),
        ):
            self.assertTrue(scheduled.is_scheduled)
            self.assertFalse(paper.is_scheduled)
            loss = self._objective(scheduled, progress=progress).loss
            self.assertAllClose(loss, self._objective(paper).loss, 1e-5, 1e-5)

    def test_each_weight_matters(self):
        values = [
            self._loss_and_gradients(defense)[0].numpy()
            for defense in (
                atat.ATAT(0.0, 0.0),
                atat.ATAT(1.0, 0.0),
                atat.ATAT(0.0, 1.0),
                atat.ATAT(0.0, 0.0, 0.1),
            )
        ]
        for i, one in enumerate(values):
            for other in values[:i]:
                self.assertGreater(np.max(np.abs(one - other)), 1e-3)


class TwinTest(DefenseTestCase):
    def _student_pass(self, images):
        """Activations and logits in training mode, as arrays."""
        taps = graphs.with_taps(self.student, ("features",))
        outputs = taps(images, training=True)
        return outputs["features"].numpy(), outputs["logits"].numpy()

    def test_standard_is_clean_cross_entropy(self):
        objective = self._objective(atat.Standard())
        _, logits = self._student_pass(self.images)
        expected = _softmax_cross_entropy(self.labels, logits)
        self.assertAllClose(objective.loss, expected, 1e-5, 1e-5)
        self.assertAllClose(objective.clean_logits, logits, 1e-5, 1e-5)

    def test_eq_7_is_the_weighted_sum_of_its_terms(self):
        objective = self._objective(atat.ATAT(0.7, 0.3, 0.4))
        terms = {name: t.numpy() for name, t in objective.terms.items()}
        expected = [
            terms["cross_entropy"][i]
            + 0.7 * terms["attention_transfer"][i]
            + 0.3 * terms["logit_pairing"][i]
            for i in range(BATCH)
        ]
        self.assertAllClose(objective.loss, expected, 1e-6, 1e-6)

    def test_terms_equal_numpy_twin_from_activations(self):
        labels = self.labels.numpy()
        objective = self._objective(atat.ATAT(1.0, 1.0, 0.25))
        # One pass over clean ++ adversarial: batch norm sees both at once.
        mixture = tf.concat([self.images, self.adversarial], axis=0)
        features, logits = self._student_pass(mixture)
        kernel = self.student.get_layer("logits").kernel
        maps = toys.closed_form_maps(features, kernel, [*labels, *labels])
        teacher = graphs.with_taps(self.teacher, ("features",))
        target = toys.closed_form_maps(
            teacher(self.images, training=False)["features"],
            self.teacher.get_layer("logits").kernel,
            labels,
        )
        clean, adversarial = logits[:BATCH], logits[BATCH:]
        expected = {
            "cross_entropy": 0.25 * _softmax_cross_entropy(labels, clean)
            + 0.75 * _softmax_cross_entropy(labels, adversarial),
            "attention_transfer": _norms(target - maps[BATCH:])
            + _norms(target - maps[:BATCH]),
            "logit_pairing": _norms(clean - adversarial),
        }
        self.assertCountEqual(objective.terms, expected)
        for name, values in expected.items():
            self.assertGreater(np.min(values), 0.0)
            self.assertAllClose(objective.terms[name], values, 1e-4, 1e-5)
        self.assertAllClose(objective.clean_logits, clean, 1e-5, 1e-5)
        self.assertAllClose(
            objective.adversarial_logits, adversarial, 1e-5, 1e-5
        )

    def test_distillation_equals_numpy_twin(self):
        """⅙ and ⅚ of Σ_j p_j (log p_j − log q_j), p the teacher's."""
        defense = atat.ATAT(distillation=0.5)
        self.assertIn("distillation", defense.terms)
        told = self._objective(defense)
        teacher = self.teacher(self.images, training=False).numpy()

        def divergence(logits):
            p = np.exp(teacher) / np.exp(teacher).sum(1, keepdims=True)
            q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            return np.sum(p * np.log(p / q), axis=1)

        expected = divergence(told.clean_logits.numpy()) / 6
        expected += divergence(told.adversarial_logits.numpy()) * 5 / 6
        self.assertAllClose(told.terms["distillation"], expected, 1e-4, 1e-5)
        without = self._objective(atat.ATAT()).loss
        self.assertAllClose(told.loss, without + 0.5 * expected, 1e-4, 1e-5)

    @parameterized.parameters(
        atat.Standard,
        atat.AdversarialTraining,
        atat.LogitPairing,
        atat.ATAT,
        compared.TLA,
        compared.TRADES,
    )
    def test_label_smoothing_is_the_mean_over_classes(self, defense):
        """(1 − s) · L_ce + s · mean_j L_ce of class j."""
        plain, smoothed = (
            self._objective(defense(label_smoothing=s)).terms["cross_entropy"]
            for s in (0.0, 0.3)
        )
        labels, means = self.labels, []
        for j in range(toys.NUM_CLASSES):
            self.labels = tf.fill([BATCH], j)
            means.append(self._objective(defense()).terms["cross_entropy"])
        self.labels = labels
        expected = 0.7 * plain + 0.3 * np.mean(means, axis=0)
        self.assertAllClose(smoothed, expected, 1e-5, 1e-5)

    def test_layers_add_up(self):
        both, hidden, features = (
            self._objective(atat.ATAT(layers=layers)).terms[
                "attention_transfer"
            ]
            for layers in (("hidden", "features"), ("hidden",), ("features",))
        )
        self.assertGreater(np.min(np.abs(hidden - features)), 0.0)
        self.assertAllClose(both, hidden + features, 1e-4, 1e-5)


class AdversarialImagesOnlyTest(DefenseTestCase):
    def test_clean_images_are_not_forwarded(self):
        twin = keras.models.clone_model(self.student)
        twin.set_weights(self.student.get_weights())
        nothing = tf.fill(self.images.shape, np.nan)
        objective = self._objective(
            atat.AdversarialTraining(clean_weight=0), images=nothing
        )
        logits = twin(self.adversarial, training=True)
        expected = _softmax_cross_entropy(self.labels, logits.numpy())
        self.assertAllClose(objective.loss, expected, 1e-5, 1e-5)
        self.assertIsNone(objective.clean_logits)
        self.assertAllClose(objective.adversarial_logits, logits, 1e-6, 1e-6)
        # Batch norm has met the adversarial images only, and once.
        for one, other in zip(
            toys.values(self.student.non_trainable_variables),
            toys.values(twin.non_trainable_variables),
            strict=True,
        ):
            self.assertAllClose(one, other, 1e-6, 1e-6)


class EqualityTest(DefenseTestCase):
    """Training starts where student and teacher are the same network."""

    def test_gradients_are_finite(self):
        self.teacher.set_weights(self.student.get_weights())
        _, gradients = self._loss_and_gradients(
            atat.ATAT(), adversarial=self.images
        )
        for gradient in gradients:
            self.assertTrue(np.all(np.isfinite(gradient)))

    def test_without_batch_norm_only_cross_entropy_is_left(self):
        # Without batch norm both modes are one function: the distances are
        # zero exactly, and so are their gradients.
        self.student = toys.small_classifier(seed=1, norm=False)
        self.teacher = toys.small_classifier(seed=1, norm=False)
        terms = self._objective(atat.ATAT(), adversarial=self.images).terms
        self.assertAllClose(terms["attention_transfer"], np.zeros(BATCH))
        self.assertAllClose(terms["logit_pairing"], np.zeros(BATCH))
        _, gradients = self._loss_and_gradients(
            atat.ATAT(), adversarial=self.images
        )
        _, expected = self._loss_and_gradients(
            atat.Standard(), adversarial=self.images
        )
        for one, other in zip(gradients, expected, strict=True):
            self.assertAllClose(one, other, 1e-5, 1e-6)

    def test_maps_emptied_by_relu_are_finite(self):
        # A head of minus ones: every class-weighted sum is negative.
        for model in (self.student, self.teacher):
            kernel = model.get_layer("logits").kernel
            kernel.assign(-tf.ones(kernel.shape))
        terms = self._objective(atat.ATAT()).terms
        self.assertAllEqual(terms["attention_transfer"], np.zeros(BATCH))
        _, gradients = self._loss_and_gradients(atat.ATAT())
        for gradient in gradients:
            self.assertTrue(np.all(np.isfinite(gradient)))


class ConstructorTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ("at", {"clean_weight": 1.0}, r"\[0, 1\).*clean_weight=1.0"),
        ("at", {"clean_weight": -0.1}, "clean_weight=-0.1"),
        ("alp", {"logit_weight": -1.0}, "logit_weight >= 0.*-1.0"),
        ("alp", {"clean_weight": 1.1}, r"\[0, 1\].*clean_weight=1.1"),
        ("alp", {"pairing": "l2"}, "kl, mse, norm.*'l2'"),
        ("alp", {"logit_schedule": (0.5,)}, "logit_schedule.*two shares"),
        ("atat", {"attention_weight": -0.5}, "attention_weight >= 0.*-0.5"),
        ("atat", {"logit_weight": -0.5}, "logit_weight >= 0.*-0.5"),
        ("atat", {"logit_weight": float("nan")}, "logit_weight=nan"),
        ("atat", {"clean_weight": -1.0}, r"\[0, 1\].*clean_weight=-1.0"),
        ("atat", {"score": "logits"}, "centred, logit, margin.*'logits'"),
        ("atat", {"map_distance": "l2"}, "cosine, norm, rms.*'l2'"),
        ("atat", {"pairing": "mes"}, "kl, mse, norm.*'mes'"),
        ("atat", {"classes": "tow"}, "true, two.*'tow'"),
        ("atat", {"distillation": -1.0}, "distillation >= 0.*-1.0"),
        ("atat", {"label_smoothing": 1.0}, r"label_smoothing in \[0, 1\)"),
        ("atat", {"attention_schedule": (0.6, 0.6)}, "do not overlap.*0.6"),
        ("atat", {"layers": ()}, r"at least one.*layers=\(\)"),
    )
    def test_rules(self, name, fields, message):
        with self.assertRaisesRegex(InputError, f"Expected .*{message}"):
            atat.DEFENSES[name](**fields)

    @parameterized.parameters(*atat.DEFENSES)
    def test_defaults_are_valid_and_printable(self, name):
        defense = atat.DEFENSES[name]()
        self.assertEqual(defense, atat.DEFENSES[name]())
        self.assertStartsWith(repr(defense), type(defense).__name__)


if __name__ == "__main__":
    tf.test.main()
