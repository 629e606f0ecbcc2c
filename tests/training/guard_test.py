"""When a validation accuracy has collapsed, and what is said then."""

from absl.testing import absltest, parameterized

from atat_tf.training import validation


class CollapseTest(parameterized.TestCase):
    @parameterized.parameters(
        ([], False),
        ([0.4], False),
        ([0.0, 0.0], False),
        ([0.4, 0.21], False),
        ([0.4, 0.2], False),
        ([0.4, 0.19], True),
        # The best before, not the one before.
        ([0.4, 0.3, 0.19], True),
        # It has recovered.
        ([0.4, 0.0, 0.3], False),
        # Slow overfitting, as Rice et al. 2020 saw it: 53 to 46 %.
        ([0.45, 0.53, 0.5, 0.46], False),
    )
    def test_half_of_the_best(self, scores, expected):
        self.assertEqual(validation.has_collapsed(scores, 0.5), expected)

    def test_another_share(self):
        self.assertTrue(validation.has_collapsed([0.4, 0.3], 0.8))
        self.assertFalse(validation.has_collapsed([0.4, 0.3], 0.7))

    def test_report(self):
        self.assertEqual(
            validation.collapse_sentence([0.2, 0.412, 0.021]),
            "Validation accuracy under PGD has collapsed: 2.1 % in epoch 3, "
            "after 41.2 % in epoch 2, whose weights are kept as the best.",
        )


if __name__ == "__main__":
    absltest.main()
