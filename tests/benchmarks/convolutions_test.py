"""Convolutions of a network: operations counted by hand, passes twice over."""

import math

import tensorflow as tf
from absl.testing import parameterized

from atat_tf.models import graphs, wide_resnet
from benchmarks.cost import convolutions

# From 16 to 32 channels on 16 x 16 pixels, of which it keeps 8 x 8.
_STRIDED = convolutions.Convolution((16, 16), (3, 3, 16, 32), 2)


class ConvolutionsTest(tf.test.TestCase, parameterized.TestCase):
    def test_operations_by_hand(self):
        # 8 · 8 positions, each a sum of 9 · 16 products for 32 channels.
        self.assertEqual(_STRIDED.positions, 64)
        self.assertEqual(_STRIDED.flops(5), 5 * 2 * 64 * 144 * 32)

    def test_an_odd_side_is_rounded_up(self):
        odd = convolutions.Convolution((9, 7), (1, 1, 2, 3), 2)
        self.assertEqual(odd.positions, 5 * 4)

    def test_products_have_as_many_operations(self):
        products = _STRIDED.products(5)
        self.assertEqual(products[convolutions.FORWARD], (320, 144, 32))
        self.assertEqual(products[convolutions.INPUT], (320, 32, 144))
        self.assertEqual(products[convolutions.KERNEL], (144, 320, 32))
        for sizes in products.values():
            self.assertEqual(2 * math.prod(sizes), _STRIDED.flops(5))

    def test_products_are_of_the_patches(self):
        """The forward product, done, is the convolution."""
        images = tf.random.stateless_normal((5, 16, 16, 16), (1, 2))
        kernel = tf.random.stateless_normal(_STRIDED.kernel, (3, 4))
        rows, columns, channels = _STRIDED.products(5)[convolutions.FORWARD]
        patches = tf.image.extract_patches(
            images, (1, 3, 3, 1), (1, 2, 2, 1), (1, 1, 1, 1), "SAME"
        )
        product = tf.reshape(patches, (rows, columns)) @ tf.reshape(
            kernel, (columns, channels)
        )
        convolved = tf.nn.conv2d(images, kernel, 2, "SAME")
        self.assertAllClose(
            tf.reshape(product, convolved.shape), convolved, atol=1e-4
        )

    def test_all_convolutions_of_a_network(self):
        network = wide_resnet.wide_resnet((16, 16, 3), 10, depth=10, width=1)
        found = convolutions.of(network)
        flops = sum(
            shape.flops(1) * len(layers) for shape, layers in found.items()
        )
        dense = 2 * 64 * 10
        self.assertEqual(flops + dense, graphs.flops_per_image(network))
        first = next(iter(found))
        self.assertEqual(found[first], ["stem"])
        # Both of group 0, and the second of the others.
        same = convolutions.Convolution((16, 16), (3, 3, 16, 16), 1)
        self.assertEqual(found[same], ["group0_0_conv1", "group0_0_conv2"])

    def test_passes_of_a_step(self):
        """7 attack steps, a teacher, a student on clean and adversarial."""
        self.assertEqual(
            convolutions.passes_of(7, is_first=False),
            {
                convolutions.FORWARD: 10,
                convolutions.INPUT: 9,
                convolutions.KERNEL: 2,
            },
        )
        first = convolutions.passes_of(7, is_first=True)
        self.assertEqual(first[convolutions.INPUT], 7)

    def test_what_is_timed_runs(self):
        tiny = convolutions.Convolution((4, 4), (3, 3, 2, 3), 2)
        functions = convolutions.functions(tiny, 2)
        self.assertLen(functions, 3)
        for alone, product, repeats in functions.values():
            alone()
            product()
            # 2 · 2 · 4 · 18 · 3 operations are far from 10⁹.
            self.assertEqual(repeats, 50)

    def test_timed_passes_are_the_gradients(self):
        tiny = convolutions.Convolution((4, 4), (3, 3, 2, 3), 2)
        passes = convolutions._passes(tiny, 2)
        x = convolutions._random((2, 4, 4, 2))
        kernel = convolutions._random(tiny.kernel)
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            y = tf.nn.conv2d(x, kernel, 2, "SAME")
        gradient = convolutions._random(y.shape)
        to_input, to_kernel = tape.gradient(y, (x, kernel), gradient)
        self.assertAllClose(passes[convolutions.FORWARD](), y)
        self.assertAllClose(passes[convolutions.INPUT](), to_input)
        self.assertAllClose(passes[convolutions.KERNEL](), to_kernel)


if __name__ == "__main__":
    tf.test.main()
