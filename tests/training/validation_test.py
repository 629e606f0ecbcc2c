"""An epoch judged: a collapse under the attack of validation."""

from absl.testing import parameterized

from atat_tf.training import validation


class CollapseTest(parameterized.TestCase):
    @parameterized.parameters(
        ([], 0.5, False),
        ([0.4], 0.5, False),
        ([0.0, 0.0], 0.5, False),
        ([0.4, 0.2], 0.5, False),
        ([0.4, 0.19], 0.5, True),
        # The best before, not the one before.
        ([0.4, 0.3, 0.19], 0.5, True),
        # It has recovered.
        ([0.4, 0.0, 0.3], 0.5, False),
        # Slow overfitting, as Rice et al. 2020 saw it: 53 to 46 %.
        ([0.45, 0.53, 0.5, 0.46], 0.5, False),
        ([0.4, 0.3], 0.8, True),
        ([0.4, 0.3], 0.7, False),
    )
    def test_below_a_share_of_the_best(self, scores, share, expected):
        self.assertEqual(validation.has_collapsed(scores, share), expected)

    def test_sentence(self):
        self.assertRegex(
            validation.collapse_sentence([0.2, 0.412, 0.021]),
            "2.1 % in epoch 3, after 41.2 % in epoch 2",
        )
