"""What the benchmarks of training count: passes and epochs, by hand."""

import pytest
import tensorflow as tf
from absl.testing import parameterized

from benchmarks import fresh_work, timings


def _config(method, **attack):
    config = timings.resolved_config(method, 10, 1, 128)
    config.attack.update(attack)
    return config


class TimingsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        # 7 of the attack, 2 of the student; a teacher forwards once more.
        ("atat", 7, (10, 9)),
        ("at", 7, (9, 9)),
        ("atat", 1, (4, 3)),
    )
    def test_passes(self, method, num_steps, passes):
        config = _config(method, num_steps=num_steps)
        self.assertEqual(timings.passes(config), passes)

    def test_passes_of_a_cheap_attack(self):
        # One gradient and the student's two; the teacher forwards once more.
        config = _config("atat", name="n_fgsm")
        self.assertEqual(timings.passes(config), (4, 3))

    def test_passes_of_adversarial_images_alone(self):
        config = _config("at")
        config.defense.clean_weight = 0.0
        self.assertEqual(timings.passes(config), (8, 8))

    def test_activations(self):
        """Every layer's output of WRN-10-1, in floats, group by group."""
        pixels = 2 * 32 * 32 * 3  # the images, and normalised
        maps = 32 * 32 * 16  # halved by each of the two strides
        group0 = maps + 7 * maps  # stem; 2 norms, 2 ReLUs, 2 convolutions, sum
        group1 = 2 * maps + 6 * maps / 2  # first norm and ReLU; a shortcut more
        group2 = 2 * maps / 2 + 6 * maps / 4
        head = 2 * maps / 4 + 64 + 10
        self.assertEqual(
            fresh_work.activation_bytes(_config("atat")),
            4 * (pixels + group0 + group1 + group2 + head),
        )

    @pytest.mark.long
    def test_given_weights_are_where_a_step_starts(self):
        """Both steps have the same first loss; other weights have another."""
        config = _config("atat", num_steps=1)
        config.attack.random_start = False
        split = timings.random_split(4)
        first, other = timings.classifier(config), timings.classifier(config)
        losses = [
            timings.training_step(config, split, weights=w.get_weights())()
            for w in (first, first, other)
        ]
        self.assertAllClose(losses[0], losses[1])
        self.assertNotAllClose(losses[0], losses[2], atol=1e-3)

    def test_round_robin(self):
        calls = []
        clock, processor = timings.round_robin(
            {name: lambda n=name: calls.append(n) for name in "ab"}, 3
        )
        # Twice each untimed, then in turns.
        self.assertEqual("".join(calls), "aabb" + "ab" * 3)
        for seconds in (clock, processor):
            self.assertEqual([len(seconds[name]) for name in "ab"], [3, 3])


if __name__ == "__main__":
    tf.test.main()
