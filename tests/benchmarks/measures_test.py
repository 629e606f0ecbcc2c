"""What the benchmarks count, by hand: rounds, activations, memory."""

from absl.testing import absltest

from benchmarks import memory, ratios, timings


class MeasuresTest(absltest.TestCase):
    def test_activations(self):
        """Every layer's output of WRN-10-1, in floats, group by group."""
        pixels = 2 * 32 * 32 * 3  # the images, and normalised
        maps = 32 * 32 * 16  # halved by each of the two strides
        group0 = maps + 7 * maps  # stem; 2 norms, 2 ReLUs, 2 convolutions, sum
        group1 = 2 * maps + 6 * maps / 2  # first norm and ReLU; a shortcut more
        group2 = 2 * maps / 2 + 6 * maps / 4
        head = 2 * maps / 4 + 64 + 10
        config = timings.resolved_config("atat", 10, 1, 128)
        self.assertEqual(
            memory.activation_bytes(config),
            4 * (pixels + group0 + group1 + group2 + head),
        )

    def test_memory_over_activations(self):
        small = {"peak_bytes": 150, "activation_bytes": 10}
        large = {"peak_bytes": 390, "activation_bytes": 130}
        # 240 bytes more for 120 more of activations.
        self.assertEqual(memory.over_activations(large, small), 2.0)

    def test_round_robin(self):
        calls = []
        clock, processor = ratios.round_robin(
            {name: lambda n=name: calls.append(n) for name in "ab"}, 3
        )
        # Once each untimed, then in turns.
        self.assertEqual("".join(calls), "ab" * 4)
        for seconds in (clock, processor):
            self.assertEqual([len(seconds[name]) for name in "ab"], [3, 3])
