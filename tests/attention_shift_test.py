"""The three numbers of an attention shift, worked by hand."""

import numpy as np
from absl.testing import absltest

from atat_tf import grad_cam


def _maps(*rows):
    return np.array(rows, np.float32).reshape(len(rows), 2, 2)


class AttentionShiftTest(absltest.TestCase):
    def test_cosine_distance(self):
        # ⟨u, v⟩ = 3·4 + 4·3 = 24, ‖u‖ = ‖v‖ = 5: 1 − 24/25.
        first = _maps([3, 4, 0, 0], [1, 0, 0, 0], [1, 2, 3, 4], [1, 0, 0, 0])
        second = _maps([4, 3, 0, 0], [0, 1, 0, 0], [2, 4, 6, 8], [0, 0, 0, 0])
        np.testing.assert_allclose(
            grad_cam.cosine_distance(first, second),
            [0.04, 1.0, 0.0, 1.0],
            atol=1e-12,
        )

    def test_two_empty_maps_are_equal(self):
        empty = _maps([0, 0, 0, 0])
        self.assertEqual(grad_cam.cosine_distance(empty, empty), 0.0)
        self.assertEqual(grad_cam.l2_distance(empty, empty), 0.0)

    def test_cosine_distance_is_free_of_scale_and_l2_is_not(self):
        generator = np.random.default_rng(0)
        first, second = generator.uniform(size=(2, 5, 4, 4))
        np.testing.assert_allclose(
            grad_cam.cosine_distance(first, 7 * second),
            grad_cam.cosine_distance(first, second),
            atol=1e-12,
        )
        # ‖(3, 4)‖
        self.assertEqual(
            grad_cam.l2_distance(_maps([3, 0, 1, 1]), _maps([0, 4, 1, 1])),
            5.0,
        )

    def test_top_decile_is_a_tenth_of_the_places_rounded_up(self):
        clean = np.arange(20.0).reshape(1, 4, 5)
        attacked = np.ones((1, 4, 5))
        attacked[0, 3, 3:] = [2.0, 4.0]  # the two places of 18 and 19
        # (2 + 4) / (18 · 1 + 2 + 4)
        np.testing.assert_allclose(
            grad_cam.top_decile_mass(clean, attacked), [6 / 24]
        )
        # Of 2 × 2 places one: 0.4 is rounded up.
        np.testing.assert_allclose(
            grad_cam.top_decile_mass(_maps([0, 9, 1, 1]), _maps([1, 3, 0, 4])),
            [3 / 8],
        )

    def test_top_decile_takes_the_first_of_equal_places(self):
        np.testing.assert_allclose(
            grad_cam.top_decile_mass(_maps([5, 5, 0, 0]), _maps([1, 3, 0, 0])),
            [1 / 4],
        )

    def test_nothing_is_said_of_the_mass_of_an_empty_map(self):
        full, empty = _maps([1, 2, 3, 4]), _maps([0, 0, 0, 0])
        for pair in ((full, empty), (empty, full)):
            self.assertTrue(np.isnan(grad_cam.top_decile_mass(*pair)))

    def test_numbers_of_an_unmoved_map(self):
        maps = np.random.default_rng(1).uniform(size=(3, 8, 8))
        found = grad_cam.shift_numbers(maps, maps)
        self.assertSameElements(found, grad_cam.SHIFT_NAMES)
        np.testing.assert_allclose(found["cosine_distance"], 0, atol=1e-12)
        np.testing.assert_array_equal(found["l2_distance"], 0)
        # ⌈64 / 10⌉ = 7 places hold the most that seven can.
        expected = np.sort(maps.reshape(3, 64))[:, -7:].sum(1)
        np.testing.assert_allclose(
            found["top_decile_mass"], expected / maps.sum((1, 2))
        )
