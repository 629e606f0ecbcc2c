"""Eq. 7 and its neighbours: reductions, twins, who is moved, errors."""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import losses
from atat_tf.defenses import atat, compared, objective
from atat_tf.errors import InputError
from atat_tf.models import graphs
from tests.defenses import twins
from tests.support import toys

BATCH = 4


def _norms(x):
    return np.sqrt(np.sum(np.square(x), axis=tuple(range(1, x.ndim))))


class EveryDefenseTest(twins.DefenseTestCase):
    @parameterized.parameters(*atat.DEFENSES)
    def test_terms_shapes_and_gradients(self, name):
        defense = atat.DEFENSES[name]()
        objective = self.objective(defense)
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
        _, gradients = self.loss_and_gradients(defense)
        for gradient in gradients:
            self.assertTrue(np.all(np.isfinite(gradient)))
            self.assertGreater(np.max(np.abs(gradient)), 0.0)

    @parameterized.parameters(*atat.DEFENSES)
    def test_leaves_the_teacher_alone(self, name):
        # Unfrozen: a frozen batch norm would not move in any mode.
        self.teacher.trainable = True
        before = toys.values(self.teacher.variables)
        self.objective(atat.DEFENSES[name]())
        after = toys.values(self.teacher.variables)
        for old, new in zip(before, after, strict=True):
            self.assertAllEqual(old, new)

    def test_no_gradient_reaches_the_teacher(self):
        with tf.GradientTape() as tape:
            loss = self.objective(atat.ATAT()).loss
        variables = [v.value for v in self.teacher.variables]
        for gradient in tape.gradient(loss, variables):
            self.assertIsNone(gradient)

    @parameterized.parameters(*atat.DEFENSES)
    def test_the_teacher_is_read_only_where_it_is_needed(self, name):
        defense = atat.DEFENSES[name]()
        before = self.objective(defense).terms
        toys.randomise(self.teacher, seed=7)
        after = self.objective(defense).terms
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
        loss = self.objective(defense).loss
        self.adversarial = 1.0 - self.images
        other = self.objective(defense).loss
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
        loss = self.objective(defense).loss
        after = toys.values(self.student.non_trainable_variables)
        for old, new in zip(before, after, strict=True):
            self.assertTrue(np.all(old != new))
        self.assertAllClose(self.objective(defense).loss, loss, 1e-6, 1e-6)


class ReductionTest(twins.DefenseTestCase):
    @parameterized.parameters(
        (atat.ATAT(0, 0, 0.5), atat.LogitPairing(0, 0.5)),
        (atat.ATAT(0, 0.7, 0.3), atat.LogitPairing(0.7, 0.3)),
        *(
            (
                atat.ATAT(0, 0.7, 0, pairing=pairing),
                atat.LogitPairing(0.7, 0, pairing),
            )
            for pairing in losses.PAIRINGS
        ),
        (atat.LogitPairing(0, 0.3), atat.AdversarialTraining(0.3)),
        (atat.LogitPairing(6, 1, "kl"), compared.TRADES(6)),
        (
            compared.TLA(0, 0, clean_weight=0.3),
            atat.AdversarialTraining(clean_weight=0.3),
        ),
    )
    def test_without_its_own_terms_it_is_the_other(self, one, other):
        self.assert_same(one, other)

    def test_two_classes_of_which_one_is_the_same_everywhere(self):
        """Two-class maps are the mean of each class's own Eq. 5."""
        both = self.objective(atat.ATAT(classes="two"))
        own = self.objective(atat.ATAT()).terms["attention_transfer"]
        labels = self.labels
        self.labels = losses.strongest_other(labels, both.adversarial_logits)
        other = self.objective(atat.ATAT()).terms["attention_transfer"]
        self.assertGreater(np.max(np.abs(own - other)), 1e-2)
        self.assertAllClose(
            both.terms["attention_transfer"], (own + other) / 2, 1e-5, 1e-6
        )

    def test_each_field_beyond_the_papers_matters(self):
        paper = self.objective(atat.ATAT()).loss
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
            loss = self.objective(atat.ATAT(**fields)).loss
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
        self.assertEqual(objective.ramp(2.0, schedule), 0.0)  # steps beyond
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
            loss = self.objective(scheduled, progress=progress).loss
            self.assertAllClose(loss, self.objective(paper).loss, 1e-5, 1e-5)


class TwinTest(twins.DefenseTestCase):
    def test_standard_is_clean_cross_entropy(self):
        objective = self.objective(atat.Standard())
        _, logits = self.student_pass(self.images)
        expected = twins.cross_entropy(self.labels, logits)
        self.assertAllClose(objective.loss, expected, 1e-5, 1e-5)
        self.assertAllClose(objective.clean_logits, logits, 1e-5, 1e-5)

    def test_terms_equal_numpy_twin_from_activations(self):
        labels = self.labels.numpy()
        objective = self.objective(atat.ATAT(0.7, 0.3, 0.25))
        # One pass over clean ++ adversarial: batch norm sees both at once.
        features, logits = self.student_pass(self.mixture)
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
            "cross_entropy": 0.25 * twins.cross_entropy(labels, clean)
            + 0.75 * twins.cross_entropy(labels, adversarial),
            "attention_transfer": _norms(target - maps[BATCH:])
            + _norms(target - maps[:BATCH]),
            "logit_pairing": _norms(clean - adversarial),
        }
        self.assertCountEqual(objective.terms, expected)
        for name, values in expected.items():
            self.assertGreater(np.min(values), 0.0)
            self.assertAllClose(objective.terms[name], values, 1e-4, 1e-5)
        cross_entropy, attention_transfer, pairing = expected.values()
        total = cross_entropy + 0.7 * attention_transfer + 0.3 * pairing
        self.assertAllClose(objective.loss, total, 1e-4, 1e-5)
        self.assertAllClose(objective.clean_logits, clean, 1e-5, 1e-5)
        self.assertAllClose(
            objective.adversarial_logits, adversarial, 1e-5, 1e-5
        )

    def test_distillation_equals_numpy_twin(self):
        """⅙ and ⅚ of Σ_j p_j (log p_j − log q_j), p the teacher's."""
        defense = atat.ATAT(distillation=0.5)
        self.assertIn("distillation", defense.terms)
        told = self.objective(defense)
        teacher = self.teacher(self.images, training=False).numpy()

        def divergence(logits):
            p = np.exp(teacher) / np.exp(teacher).sum(1, keepdims=True)
            q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            return np.sum(p * np.log(p / q), axis=1)

        expected = divergence(told.clean_logits.numpy()) / 6
        expected += divergence(told.adversarial_logits.numpy()) * 5 / 6
        self.assertAllClose(told.terms["distillation"], expected, 1e-4, 1e-5)
        without = self.objective(atat.ATAT()).loss
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
            self.objective(defense(label_smoothing=s)).terms["cross_entropy"]
            for s in (0.0, 0.3)
        )
        labels, means = self.labels, []
        for j in range(toys.NUM_CLASSES):
            self.labels = tf.fill([BATCH], j)
            means.append(self.objective(defense()).terms["cross_entropy"])
        self.labels = labels
        expected = 0.7 * plain + 0.3 * np.mean(means, axis=0)
        self.assertAllClose(smoothed, expected, 1e-5, 1e-5)

    def test_layers_add_up(self):
        both, hidden, features = (
            self.objective(atat.ATAT(layers=layers)).terms["attention_transfer"]
            for layers in (("hidden", "features"), ("hidden",), ("features",))
        )
        self.assertGreater(np.min(np.abs(hidden - features)), 0.0)
        self.assertAllClose(both, hidden + features, 1e-4, 1e-5)


class AdversarialImagesOnlyTest(twins.DefenseTestCase):
    def test_clean_images_are_not_forwarded(self):
        twin = keras.models.clone_model(self.student)
        twin.set_weights(self.student.get_weights())
        self.images = tf.fill(self.images.shape, np.nan)
        objective = self.objective(atat.AdversarialTraining(clean_weight=0))
        logits = twin(self.adversarial, training=True)
        expected = twins.cross_entropy(self.labels, logits.numpy())
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


class EqualityTest(twins.DefenseTestCase):
    """Training starts where student and teacher are the same network."""

    def test_without_batch_norm_only_cross_entropy_is_left(self):
        # Without batch norm both modes are one function: the distances are
        # zero exactly, and so are their gradients.
        self.student = toys.small_classifier(seed=1, norm=False)
        self.teacher = toys.small_classifier(seed=1, norm=False)
        self.adversarial = self.images
        terms = self.objective(atat.ATAT()).terms
        self.assertAllClose(terms["attention_transfer"], np.zeros(BATCH))
        self.assertAllClose(terms["logit_pairing"], np.zeros(BATCH))
        self.assert_same(atat.ATAT(), atat.Standard())
        self.assert_same(compared.TRADES(), atat.Standard())

    def test_maps_emptied_by_relu_are_finite(self):
        # A head of minus ones: every class-weighted sum is negative.
        for model in (self.student, self.teacher):
            kernel = model.get_layer("logits").kernel
            kernel.assign(-tf.ones(kernel.shape))
        terms = self.objective(atat.ATAT()).terms
        self.assertAllEqual(terms["attention_transfer"], np.zeros(BATCH))
        _, gradients = self.loss_and_gradients(atat.ATAT())
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
