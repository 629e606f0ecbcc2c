"""FAB-T: exact projections, exact distances on linear models, real weights."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import losses
from atat_tf.attacks import stepped
from atat_tf.attacks.fab import FAB, linf_projection
from tests.support import toys


def _projection(points, values, gradients, lower=0.0, upper=1.0):
    return linf_projection(
        tf.constant(points, tf.float32),
        tf.constant(values, tf.float32),
        tf.constant(gradients, tf.float32),
        lower,
        upper,
    ).numpy()


def _bisected(point, value, gradient, lower=0.0, upper=1.0):
    """Returns the projection of one point, by bisection in float64."""
    way = -np.sign(value) * np.sign(gradient)
    room = np.where(way > 0, upper - point, point - lower)

    def value_after(length):
        return value + gradient @ (way * np.minimum(length, room))

    low, high = 0.0, np.max(np.where(way == 0, 0, room), initial=0.0)
    if value_after(high) * value > 0:
        return way * np.minimum(high, room)
    for _ in range(100):
        middle = (low + high) / 2
        crossed = value_after(middle) * value <= 0
        low, high = (low, middle) if crossed else (middle, high)
    return way * np.minimum(high, room)


def _random_planes(count, size, seed=0):
    """Returns points, values and gradients, with many at the edges."""
    generator = np.random.default_rng(seed)
    points = np.clip(generator.uniform(-0.3, 1.3, (count, size)), 0, 1)
    # Slopes over many orders of magnitude, a fifth of them zero.
    gradients = generator.normal(size=(count, size)) ** 5
    gradients *= generator.uniform(size=(count, size)) > 0.2
    reach = np.sum(np.abs(gradients), axis=1)
    values = generator.uniform(-0.7, 0.7, count) * reach
    return tuple(a.astype(np.float32) for a in (points, values, gradients))


class ProjectionTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.named_parameters(
        ("both_alike", [0.5, 0.5], -0.4, [1, 1], [0.2, 0.2]),
        ("from_the_other_side", [0.5, 0.5], 0.4, [1, 1], [-0.2, -0.2]),
        # 3 λ + 1 λ = 0.4.
        ("against_a_slope", [0.5, 0.5], -0.4, [3, -1], [0.1, -0.1]),
        # The first has room for 0.1; 0.3 is left for the second.
        ("box_clips", [0.9, 0.5], -0.4, [1, 1], [0.1, 0.3]),
        # Of 5, 0.1 + 0.5 can be had.
        ("plane_out_of_reach", [0.9, 0.5], -5.0, [1, 1], [0.1, 0.5]),
        ("exactly_the_corner", [0.75, 0.5], -0.75, [1, 1], [0.25, 0.5]),
        ("no_slope", [0.5, 0.5], -0.4, [0, 0], [0, 0]),
        ("one_slope", [0.5, 0.5], -0.4, [0, 2], [0, 0.2]),
        ("on_the_plane", [0.5, 0.5], 0.0, [1, 1], [0, 0]),
        ("in_the_corner", [1.0, 1.0], -0.4, [1, 1], [0, 0]),
    )
    def test_hand_numbers(self, point, value, gradient, expected):
        found = _projection([point], [value], [gradient])
        self.assertAllClose(found, [expected], 1e-6, 1e-6)

    def test_box_of_other_bounds(self):
        found = _projection([[-0.5, 1.5]], [-2.0], [[1, 1]], -1.0, 2.0)
        # The second has room for 0.5, so the first goes the other 1.5.
        self.assertAllClose(found, [[1.5, 0.5]], 1e-6, 1e-6)

    @parameterized.parameters((200, 1), (200, 3), (100, 40), (20, 3072))
    def test_equals_bisection(self, count, size):
        points, values, gradients = _random_planes(count, size)
        found = _projection(points, values, gradients)
        reached = 0
        for i in range(count):
            arguments = points[i], values[i], gradients[i]
            expected = _bisected(*(a.astype(np.float64) for a in arguments))
            self.assertAllClose(
                np.max(np.abs(found[i])), np.max(np.abs(expected)), 1e-4, 1e-6
            )
            self.assertAllClose(found[i], expected, 1e-4, 1e-5)
            rest = values[i] + gradients[i] @ found[i]
            reached += abs(rest) < 1e-4 * np.sum(np.abs(gradients[i]))
        # Both kinds are there: planes in reach of the box, and others.
        self.assertBetween(reached, 1, count - 1 if size < 40 else count)

    @parameterized.parameters(1e-30, 1e-4, 1e4, 1e30)
    def test_scale_of_the_plane_does_not_matter(self, scale):
        points, values, gradients = _random_planes(50, 10)
        # Of about one size: a smallest slope would be no float32 any more.
        gradients = np.cbrt(gradients)
        found = _projection(points, values * scale, gradients * scale)
        expected = _projection(points, values, gradients)
        self.assertAllClose(found, expected, 1e-4, 1e-5)

    def test_finite_for_any_finite_numbers(self):
        extremes = np.array(
            [0.0, -0.0, 1e-45, -1e-40, 1e-38, 1.0, -1e38, 3.4e38], np.float32
        )
        gradients = np.stack(np.meshgrid(extremes, extremes), -1).reshape(-1, 2)
        for value in extremes:
            values = np.full(len(gradients), value)
            points = np.full(gradients.shape, 0.25, np.float32)
            found = points + _projection(points, values, gradients)
            self.assertAllInRange(found, 0.0, 1.0)


def _random_linear(num_classes, shape, seed=0, edges=False):
    """Returns logits_fn, weights, images and the labels it gives them."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(*shape, num_classes)).astype(np.float32)
    images = generator.uniform(size=(24, *shape)).astype(np.float32)
    if edges:
        images = np.clip(2 * images - 0.5, 0, 1)
    logits_fn = toys.linear_logits(weights)
    labels = np.argmax(logits_fn(images), -1).astype(np.int32)
    return logits_fn, weights, tf.constant(images), tf.constant(labels)


def _distances(logits_fn, weights, images, labels):
    """Returns [n, k], the ℓ∞ distance to each class, inf out of reach."""
    logits = logits_fn(images).numpy().astype(np.float64)
    num_classes = logits.shape[1]
    weights = weights.reshape(-1, num_classes).astype(np.float64)
    distances = np.full(logits.shape, np.inf)
    for i, label in enumerate(labels.numpy()):
        point = images[i].numpy().ravel().astype(np.float64)
        for target in set(range(num_classes)) - {label}:
            value = logits[i, target] - logits[i, label]
            gradient = weights[:, target] - weights[:, label]
            way = _bisected(point, value, gradient)
            if value + gradient @ way > -1e-9:
                distances[i, target] = np.max(np.abs(way))
    return distances


class LinearModelTest(parameterized.TestCase, tf.test.TestCase):
    def test_box_clips_the_way(self):
        # The boundary is x1 + x2 = 1.7. From (0.9, 0.2), 0.6 is missing, of
        # which the first pixel has 0.1: the other has to go 0.5.
        weights = np.zeros((1, 2, 1, 2), np.float32)
        weights[..., 1] = 1.0
        logits_fn = toys.linear_logits(weights, bias=[0.0, -1.7])
        images = tf.constant([0.9, 0.2], shape=(1, 1, 2, 1))
        state = toys.last_state(FAB(0.4), logits_fn, images, tf.constant([0]))
        self.assertAllClose(state["distance"], [0.5], atol=1e-4)
        self.assertAllClose(
            state["closest"].ravel(), [1.0, 0.7], rtol=0, atol=1e-4
        )
        # Farther than ε: known, and not a success.
        self.assertAllEqual(state["broke_at"], [stepped.NEVER])
        self.assertAllEqual(state["adversarial"], images)
        self.assertAllGreater(state["margin"], 0)

    @parameterized.parameters(2, 4)
    def test_all_targets_find_the_exact_distances(self, num_classes):
        """And break exactly those images that are within epsilon."""
        model = _random_linear(num_classes, (4, 4, 3), edges=True)
        exact = np.min(_distances(*model), axis=1)
        # Halfway between two images, so that rounding decides nothing.
        ascending = np.sort(exact)
        gap = 8 + np.argmax(np.diff(ascending[8:16]))
        self.assertGreater(ascending[gap + 1] - ascending[gap], 1e-3)
        epsilon = float(ascending[gap : gap + 2].mean())
        found, broken = [], np.zeros(24, bool)
        for target in range(1, num_classes):
            attack = FAB(epsilon, target=target)
            state = toys.last_state(attack, model[0], *model[2:])
            now = state["broke_at"] != stepped.NEVER
            self.assertAllEqual(now, state["distance"] <= epsilon)
            broken |= now
            found.append(state["distance"])
        self.assertAllClose(np.min(found, axis=0), exact, atol=1e-4)
        self.assertAllEqual(broken, exact <= epsilon)
        self.assertEqual(np.sum(broken), gap + 1)

    def test_search_ends_at_a_curved_boundary(self):
        def logits_fn(images):
            value = images[:, 0, 0, 0] ** 3 - 0.125
            return tf.stack([tf.zeros_like(value), value], axis=1)

        images = tf.constant([0.2, 0.4], shape=(2, 1, 1, 1))
        # x³ = 0.125 at 0.5. Without the search 0.3 is missed by 0.0014.
        found = toys.last_state(
            FAB(0.01, 20), logits_fn, images, tf.zeros(2, tf.int32)
        )
        self.assertAllClose(found["distance"], [0.3, 0.1], atol=2e-4)

    def test_backward_step_and_overshoot_by_hand(self):
        # From 0.2 to the boundary at 0.5: both ways are 0.3, α = 0.1, and
        # the next point is 0.2 + 1.05 · 0.3 = 0.515, which is wrong:
        # the one after starts from 0.2 + 0.9 · 0.315 = 0.4835.
        logits_fn = toys.linear_logits([[[[0.0, 1.0]]]], bias=[0.0, -0.5])
        images = tf.constant([0.2], shape=(1, 1, 1, 1))
        attack = FAB(0.4)
        state = attack.start(logits_fn, images, tf.constant([0]), toys.seeds(1))
        state = attack.step(logits_fn, state, tf.constant(0))
        self.assertAllClose(state["closest"], [[[[0.515]]]])
        self.assertAllClose(state["distance"], [0.315])
        self.assertAllClose(state["point"], [[[[0.4835]]]])
        self.assertAllEqual(state["broke_at"], [1])
        # Now 0.0165 and 0.3 are left: α = 0.0165 / 0.3165 = 0.05213, and
        # 0.94787 · (0.4835 + 0.017325) + 0.05213 · 0.515 = 0.501564.
        state = attack.step(logits_fn, state, tf.constant(1))
        self.assertAllClose(state["closest"], [[[[0.501564]]]], atol=1e-6)


class TargetTest(parameterized.TestCase, tf.test.TestCase):
    def _targets(self, rank, logits, labels):
        state = FAB(0.1, target=rank).start(
            lambda _: tf.constant(logits, tf.float32),
            toys.random_images(len(labels)),
            tf.constant(labels),
            toys.seeds(len(labels)),
        )
        return state["target"]

    @parameterized.parameters(
        (1, [2, 2]), (2, [1, 0]), (3, [3, 1]), (4, [3, 1]), (9, [3, 1])
    )
    def test_rank_among_the_wrong_classes(self, rank, expected):
        # The first is right (class 0); the second, of class 3, is not.
        logits = [[9.0, 2.0, 5.0, -1.0], [1.0, 0.0, 8.0, 4.0]]
        self.assertAllEqual(self._targets(rank, logits, [0, 3]), expected)


class StateTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.logits_fn = toys.curved_logits()
        self.images = toys.random_images(8)
        self.labels = tf.argmax(self.logits_fn(self.images), -1, tf.int32)

    def _start(self, attack, images=slice(None)):
        return attack.start(
            self.logits_fn,
            self.images[images],
            self.labels[images],
            tf.gather(toys.seeds(8), range(8)[images]),
        )

    def test_closest_is_wrong_and_as_far_as_is_said(self):
        state = toys.last_state(
            FAB(0.01, 30), self.logits_fn, self.images, self.labels
        )
        found = state["distance"] < 1
        self.assertGreater(np.sum(found), 4)
        away = np.abs(state["closest"] - self.images).max((1, 2, 3))
        self.assertAllClose(away[found], state["distance"][found])
        margin = losses.margin(self.labels, self.logits_fn(state["closest"]))
        self.assertAllLess(margin.numpy()[found], 1e-6)
        self.assertAllClose(
            margin.numpy()[found], state["closest_margin"][found], atol=1e-5
        )

    def test_path_does_not_depend_on_epsilon(self):
        near, far = (
            toys.last_state(
                FAB(e, 20), self.logits_fn, self.images, self.labels
            )
            for e in (0.001, 0.5)
        )
        for name in ("point", "closest", "distance"):
            self.assertAllEqual(near[name], far[name])

    def test_restarts_start_half_a_radius_away_and_differ(self):
        self.images = 0.25 + 0.5 * self.images
        starts = [
            self._start(FAB(0.1, restart=restart))["point"].numpy()
            for restart in (1, 2)
        ]
        for start in starts:
            away = np.abs(start - self.images).max((1, 2, 3))
            self.assertAllClose(away, np.full(8, 0.05), atol=1e-6)
        self.assertAllGreater(np.abs(starts[0] - starts[1]).max((1, 2, 3)), 0)

    def test_a_wrong_image_is_its_own_closest(self):
        labels = (self.labels + 1) % toys.NUM_CLASSES
        state = toys.last_state(
            FAB(0.05, 6), self.logits_fn, self.images, labels
        )
        self.assertAllEqual(state["broke_at"], np.zeros(8))
        self.assertAllEqual(state["distance"], np.zeros(8))
        self.assertAllEqual(state["adversarial"], self.images)
