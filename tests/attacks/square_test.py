"""Square: its shapes by hand, a NumPy twin, linear models, real weights."""

import math

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from atat_tf import losses
from atat_tf.attacks import randomness, square, stepped
from atat_tf.attacks.square import Square
from tests.support import toys

NORMS = ("linf", "l2")


def _linear_model(shape, num_classes, count, seed=0):
    """Returns weights, logits_fn, images and labels as it predicts them."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(*shape, num_classes)).astype(np.float32)
    images = generator.uniform(size=(count, *shape)).astype(np.float32)
    # Grey images are on all boundaries, so that each class gets some.
    logits_fn = toys.linear_logits(weights, -0.5 * np.sum(weights, (0, 1, 2)))
    labels = tf.argmax(logits_fn(images), -1, tf.int32)
    return weights, logits_fn, tf.constant(images), labels


class BumpTest(parameterized.TestCase, tf.test.TestCase):
    def test_hand_numbers(self):
        self.assertAllEqual(square.bump(1), [[-1.0]])
        # A half of 1 × 2: its centre is the second number, with 1 + 1/4; the
        # first, one away, has 1/4. Each half is of norm √½.
        half = np.array([0.25, 1.25]) / math.hypot(0.25, 1.25) / math.sqrt(2)
        self.assertAllClose(square.bump(2), [half, -half])
        # Halves of 1 × 3 and 2 × 3; the centre of the latter is in its
        # second row.
        upper = np.array([[0.25, 1.25, 0.25]])
        lower = np.array([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]])
        halves = [upper, -lower]
        expected = [h / np.linalg.norm(h) / math.sqrt(2) for h in halves]
        self.assertAllClose(square.bump(3), np.concatenate(expected))

    @parameterized.parameters(4, 5, 7, 12, 29)
    def test_halves_are_nested_rectangles(self, side):
        halves = []
        for rows, sign in ((side // 2, 1), (side - side // 2, -1)):
            half = np.zeros((rows, side))
            for grown in range(max(rows // 2, side // 2) + 1):
                top, left = rows // 2 - grown, side // 2 - grown
                half[
                    max(top, 0) : top + 2 * grown + 1,
                    max(left, 0) : left + 2 * grown + 1,
                ] += 1 / (grown + 1) ** 2
            halves.append(sign * half / np.linalg.norm(half))
        expected = np.concatenate(halves)
        self.assertAllClose(
            square.bump(side), expected / np.linalg.norm(expected)
        )


class ScheduleTest(parameterized.TestCase, tf.test.TestCase):
    def test_sides_on_cifar(self):
        # √(0.8 · 1024) = 28.6, and each next is a √2-th of it.
        self.assertEqual(
            Square(0.1).sides((None, 32, 32, 3), 1),
            [29, 20, 14, 10, 7, 5, 4, 3, 2, 1],
        )
        self.assertEqual(
            Square(0.1, "l2").sides((None, 32, 32, 3), 3),
            [29, 21, 15, 11, 7, 5, 5, 3, 3, 3],
        )

    @parameterized.parameters(
        # √(1 · 2 · 50) = 10 does not fit, and odd ones of 3 do not either.
        (1, (None, 2, 50, 1)),
        (3, (None, 2, 50, 1)),
        (1, (None, 1, 1, 1)),
    )
    def test_never_larger_than_the_image(self, smallest, shape):
        sides = Square(0.1, p_init=1.0).sides(shape, smallest)
        self.assertAllInRange(np.array(sides), 1, min(shape[1:3]))

    @parameterized.parameters(
        # (schedule, step, stage). Step 12 is iteration 11, the first past 10.
        (10_000, 0, 0),
        (10_000, 1, 0),
        (10_000, 11, 0),
        (10_000, 12, 1),
        (10_000, 52, 2),
        (10_000, 8001, 8),
        (10_000, 8002, 9),
        # Iteration 6 of 5,000 stands for 12, iteration 5 for 10.
        (5_000, 6, 0),
        (5_000, 7, 1),
        (5_000, 4_999, 9),
        # Iteration 1 of 100 stands for 100, past 50.
        (100, 1, 0),
        (100, 2, 2),
    )
    def test_stages_stretch_with_the_schedule(self, schedule, step, stage):
        attack = Square(0.1, schedule=schedule)
        found = attack._of_stage(np.arange(10), tf.constant(step))
        self.assertEqual(found, stage)

    def test_the_stage_of_autoattacks_last_query_is_half_way(self):
        """As in the original, whose 5,000 queries leave the schedule alone."""
        attack = Square(0.1)
        self.assertEqual(attack.num_steps, 5_000)
        found = attack._of_stage(np.arange(10), tf.constant(4_999))
        self.assertEqual(found, 7)


class Twin:
    """One image of Square in NumPy, with loops, from the same words."""

    def __init__(self, attack, image, seeds):
        self.attack, self.image, self.seeds = attack, image, seeds
        self.height, self.width, self.channels = image.shape

    def words(self, step, count):
        return randomness.random_words(self.seeds, step, count).numpy()[0]

    def sign(self, word):
        return 1.0 if word >= 2**31 else -1.0

    def corner(self, words, side):
        spans = (self.height - side + 1, self.width - side + 1)
        return [
            int(word) * span >> 32
            for word, span in zip(words, spans, strict=True)
        ]

    def stripes(self):
        words = self.words(0, self.width * self.channels)
        delta = np.zeros(self.image.shape)
        for column in range(self.width):
            for channel in range(self.channels):
                word = words[column * self.channels + channel]
                delta[:, column, channel] = (
                    self.sign(word) * self.attack.epsilon
                )
        return np.clip(self.image + delta, 0, 1)

    def square(self, point, step, side):
        words = self.words(step, 2 + self.channels)
        top, left = self.corner(words[:2], side)
        result = point.copy()
        for channel in range(self.channels):
            result[top : top + side, left : left + side, channel] += (
                2 * self.attack.epsilon * self.sign(words[2 + channel])
            )
        epsilon = self.attack.epsilon
        return np.clip(
            np.clip(result, self.image - epsilon, self.image + epsilon), 0, 1
        )

    def tiles(self):
        side = max(1, min(self.height, self.width) // 5)
        rows, columns = self.height // side, self.width // side
        words = self.words(0, rows * columns * (1 + self.channels))
        words = words.reshape(rows, columns, 1 + self.channels)
        top = (self.height - rows * side) // 2
        left = (self.width - columns * side) // 2
        delta = np.zeros(self.image.shape)
        for row in range(rows):
            for column in range(columns):
                here = words[row, column]
                bump = square.bump(side)
                bump = bump.T if self.sign(here[0]) > 0 else bump
                y, x = top + row * side, left + column * side
                for channel in range(self.channels):
                    delta[y : y + side, x : x + side, channel] = (
                        self.sign(here[1 + channel]) * bump
                    )
        return self.at_radius(delta)

    def moved_mass(self, point, step, side):
        words = self.words(step, 5 + self.channels)
        (top, left), (top2, left2) = (
            self.corner(words[i : i + 2], side) for i in (0, 2)
        )
        bump = square.bump(side)
        bump = bump.T if self.sign(words[4]) > 0 else bump
        delta = point - self.image
        unused = max(self.attack.epsilon**2 - np.sum(delta**2), 0)
        first = slice(top, top + side), slice(left, left + side)
        second = slice(top2, top2 + side), slice(left2, left2 + side)
        result = delta.copy()
        for channel in range(self.channels):
            here = delta[..., channel]
            either = np.zeros(here.shape, bool)
            either[first] = either[second] = True
            mass = np.sum(here[either] ** 2) + unused / self.channels
            old = here[first]
            new = self.sign(words[5 + channel]) * bump
            if np.any(old):
                new = new + old / np.linalg.norm(old)
            new *= math.sqrt(mass) / np.linalg.norm(new)
            result[(*second, channel)] = 0.0
            result[(*first, channel)] = new
        return self.at_radius(result)

    def at_radius(self, delta):
        delta = delta / np.linalg.norm(delta) * self.attack.epsilon
        return np.clip(self.image + delta, 0, 1)


class TwinTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.product(
        norm=NORMS, shape=[(8, 8, 3), (7, 12, 1), (12, 5, 2), (2, 3, 1)]
    )
    def test_equals_numpy(self, norm, shape):
        epsilon = 0.2 if norm == "linf" else 1.0
        attack = Square(epsilon, norm, num_steps=300, schedule=300)
        _, logits_fn, images, labels = _linear_model(shape, 3, 3)
        seeds = toys.seeds(3)
        twins = [
            Twin(attack, images[i].numpy().astype(float), seeds[i : i + 1])
            for i in range(3)
        ]
        points = [t.stripes() if norm == "linf" else t.tiles() for t in twins]
        state = attack.start(logits_fn, images, labels, seeds)
        state = attack.step(logits_fn, state, tf.constant(0))
        self.assertAllClose(state["point"], points, atol=1e-5)
        smallest = 1 if norm == "linf" else 3
        sides = attack.sides(images.shape, smallest)
        # Steps of several sizes, one after another.
        for step in (1, 2, 3, 9, 20, 60, 150, 299):
            side = int(attack._of_stage(sides, tf.constant(step)))
            before = state["point"].numpy().astype(float)
            margins = state["point_margin"].numpy()
            state = attack.step(logits_fn, state, tf.constant(step))
            move = "square" if norm == "linf" else "moved_mass"
            tried = np.stack(
                [
                    getattr(twin, move)(point, step, side)
                    for twin, point in zip(twins, before, strict=True)
                ]
            )
            tried = tried.astype(np.float32)
            tried_margins = losses.margin(labels, logits_fn(tried)).numpy()
            better = (tried_margins < margins - 1e-5)[:, None, None, None]
            worse = (tried_margins > margins + 1e-5)[:, None, None, None]
            point = state["point"].numpy()
            self.assertAllClose(point * better, tried * better, atol=2e-5)
            self.assertAllEqual(point * worse, before * worse)


class LinearModelTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters((2, (4, 4, 1)), (3, (3, 4, 2)))
    def test_linf_breaks_exactly_those_whose_best_corner_is_wrong(
        self, num_classes, shape
    ):
        weights, logits_fn, images, labels = _linear_model(
            shape, num_classes, 30
        )
        epsilon = 0.08
        best = _best_corner_margins(weights, logits_fn, images, labels, epsilon)
        self.assertGreater(np.min(np.abs(best)), 1e-3)
        state = toys.last_state(
            Square(epsilon, num_steps=900, schedule=900),
            logits_fn,
            images,
            labels,
        )
        self.assertAllEqual(state["broke_at"] != stepped.NEVER, best < 0)
        self.assertBetween(np.sum(best < 0), 5, 25)

    def test_l2_breaks_what_is_well_within_its_radius(self):
        weights, logits_fn, images, labels = _linear_model((8, 8, 1), 2, 30)
        # Away from the box's edges, so that only the ball counts.
        images = 0.5 + 0.2 * (images - 0.5)
        labels = tf.argmax(logits_fn(images), -1, tf.int32)
        slope = np.linalg.norm(weights[..., 0] - weights[..., 1])
        distances = losses.margin(labels, logits_fn(images)).numpy() / slope
        attack = Square(0.06, "l2", num_steps=1500, schedule=1500)
        state = toys.last_state(attack, logits_fn, images, labels)
        broken = state["broke_at"] != stepped.NEVER
        self.assertTrue(np.all(broken[distances < 0.6 * 0.06]))
        self.assertFalse(np.any(broken[distances > 0.06]))
        self.assertBetween(np.sum(distances < 0.6 * 0.06), 3, 27)
        self.assertGreater(np.sum(distances > 0.06), 3)

    def test_l2_uses_the_whole_radius_inside_the_box(self):
        _, logits_fn, images, labels = _linear_model(toys.IMAGE_SHAPE, 5, 8)
        images = 0.25 + 0.5 * images
        attack = Square(0.3, "l2", num_steps=40)
        state = attack.start(logits_fn, images, labels, toys.seeds(8))
        for index in range(20):
            state = attack.step(logits_fn, state, tf.constant(index))
            moved = np.reshape(state["point"] - images, [8, -1])
            away = np.linalg.norm(moved, axis=1)
            self.assertAllClose(away, np.full(8, 0.3), atol=1e-5)


def _best_corner_margins(weights, logits_fn, images, labels, epsilon):
    """Returns the least margin of a linear model in ball ∩ box."""
    logits = logits_fn(images).numpy()
    low = np.maximum(images - epsilon, 0) - images
    high = np.minimum(images + epsilon, 1) - images
    margins = np.full(logits.shape, np.inf)
    for i, label in enumerate(labels.numpy()):
        for target in set(range(logits.shape[1])) - {label}:
            slope = weights[..., label] - weights[..., target]
            drop = np.sum(np.minimum(slope * low[i], slope * high[i]))
            margins[i, target] = logits[i, label] - logits[i, target] + drop
    return margins.min(1)
