"""The strong attacks and PGD on the repository's small trained network."""

import numpy as np
import pytest
import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import apgd, fab, linf, square, stepped
from tests.support import small_network, toys

_EPSILON = small_network.EPSILON


class TrainedNetworkTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        network = small_network.classifier()
        self.logits_fn = toys.inference(network)
        self.examples = small_network.right_images(network, 20)
        self.assertGreater(len(self.examples[1]), 8)

    def _broken(self, attack):
        state = toys.last_state(attack, self.logits_fn, *self.examples)
        margin = losses.margin(
            self.examples[1], self.logits_fn(state["adversarial"])
        )
        broken = state["broke_at"] != stepped.NEVER
        self.assertAllEqual(margin < 0, broken)
        return np.sum(broken)

    def test_apgd_is_no_weaker_than_pgd_20(self):
        pgd = linf.Steps(linf.pgd(_EPSILON, _EPSILON / 4, 20))
        self.assertGreaterEqual(
            self._broken(apgd.APGD(_EPSILON)), max(1, self._broken(pgd))
        )

    @pytest.mark.long
    def test_fab_and_square_beside_pgd_100(self):
        pgd = self._broken(linf.Steps(linf.pgd(_EPSILON, _EPSILON / 4, 100)))
        ours = self._broken(fab.FAB(_EPSILON, 30))
        # One target and 30 steps miss a few; FAB may find some that PGD
        # does not.
        self.assertBetween(ours - pgd, -3, 2)
        black_box = self._broken(square.Square(_EPSILON, num_steps=100))
        self.assertBetween(black_box, 1, pgd + 1)
