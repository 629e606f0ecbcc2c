"""Fits recover what they were made of; projections are worked by hand."""

import numpy as np
from absl.testing import absltest, parameterized

from benchmarks.cost import model as cost_model


def _cost(depth, batch_size, num_steps=7, replicas=1):
    return {
        "parameters": 80_000.0 * depth,
        "flops": 1e7 * depth**1.5,
        "activations": 3e5 * depth,
        "num_steps": num_steps,
        "batch_size": batch_size,
        "replicas": replicas,
    }


class FitTest(parameterized.TestCase):
    def test_recovers_known_coefficients(self):
        """Seconds and bytes made of four and three terms, without noise."""
        costs = [
            _cost(*arguments)
            for arguments in (
                (10, 32),
                (16, 32),
                (34, 32),
                (10, 64),
                (10, 8),
                (10, 32, 1),
                (10, 32, 14),
                (10, 32, 7, 2),
                (22, 16, 3, 4),
            )
        ]
        time, memory = (0.01, 0.02, 0.0005, 0.03), (5e8, 4.0, 2.5)
        for cost in costs:
            cost["seconds"] = np.dot(time, cost_model.time_terms(cost))
            used = np.dot(memory, cost_model.memory_terms(cost))
            cost["peak_gib"] = used / 2**30
        seconds, peaks = cost_model.fits(costs)
        np.testing.assert_allclose(seconds.coefficients, time, 1e-6)
        np.testing.assert_allclose(peaks.coefficients, memory, 1e-6)
        np.testing.assert_allclose(seconds.errors + peaks.errors, 0, atol=1e-9)

    def test_errors_are_relative_and_no_coefficient_is_negative(self):
        """Of 1 and 3 seconds the constant of least relative squares is 1.2:

        min (c − 1)² + (c/3 − 1)²: c − 1 + (c/3 − 1)/3 = 0, c = 1.2.
        """
        fitted = cost_model.fit(("one",), [[1], [1]], [1, 3])
        self.assertAlmostEqual(fitted.coefficients[0], 1.2)
        np.testing.assert_allclose(fitted.errors, (0.2, -0.6))
        self.assertAlmostEqual(fitted([2.0]), 2.4)
        falling = cost_model.fit(("one", "n"), [[1, 1], [1, 2]], [3, 1])
        self.assertGreaterEqual(min(falling.coefficients), 0)

    @parameterized.parameters((7, 21), (1, 9), (20, 47))
    def test_passes(self, num_steps, expected):
        """PGD(7): 14 for the attack, 6 for the update, 1 for the teacher."""
        self.assertEqual(cost_model.passes(num_steps), expected)


class ProjectionTest(absltest.TestCase):
    def test_by_hand(self):
        """9 passes · 1 GFLOP · 100 images at 1 TFLOP/s: 0.9 s a step.

        1,000 · 4 / (100 · N) steps: 40 and 20. Two GPUs each send 2 · ½ · 4 ·
        25 M = 100 MB, 0.1 s at 1 GB/s: 20 s in all. The memory: 2 GiB, less
        100 MB · 2 of weights, over 4 · 1 M · 3 an image.
        """
        network = {
            "parameters": 25_000_000,
            "flops": 1e9,
            "activations": 1_000_000,
            "num_steps": 1,
            "batch_size": 100,
            "images": 1_000,
            "epochs": 4,
        }
        memory = cost_model.Fit(cost_model.MEMORY, (1e9, 2.0, 3.0), ())
        assumed = cost_model.Assumed(1.0, 2.0, 1.0, 0.5, a_machine=2)
        one, two, four = (
            cost_model.projected(network, gpus, assumed, memory)
            for gpus in (1, 2, 4)
        )
        self.assertAlmostEqual(one["hours"], 40 * 0.9 / 3600)
        self.assertEqual(one["share_sent"], 0)
        self.assertAlmostEqual(two["hours"], 20 * 1.0 / 3600)
        self.assertAlmostEqual(two["share_sent"], 0.1)
        self.assertAlmostEqual(two["images_a_second"], 200)
        # Between machines: 2 · ¾ · 100 MB at 0.5 GB/s is 0.3 s.
        self.assertAlmostEqual(four["hours"], 10 * 1.2 / 3600)
        self.assertEqual(
            one["images_that_fit"], (2 * 2**30 - 200_000_000) // 12_000_000
        )


if __name__ == "__main__":
    absltest.main()
