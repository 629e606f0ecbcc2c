"""The convolutions of a network, and matrix products of the same size.

A Keras model enters; its convolutions by shape, with their operations counted,
and functions that do each pass of one, alone, or the matrix product that has
as many multiplications, leave.
"""

import collections
import dataclasses
import math

import numpy as np

# A timed function repeats what it does until about so many operations.
_OPERATIONS_TIMED = 1e9
_MOST_REPEATS = 50
FORWARD, INPUT, KERNEL = "forward", "to the input", "to the kernel"


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution with "same" padding and no bias.

    Attributes:
      size: (H, W) of its input.
      kernel: (h, w, in, out).
      stride: of both axes.
    """

    size: tuple[int, int]
    kernel: tuple[int, int, int, int]
    stride: int

    @property
    def positions(self):
        """Pixels of its output."""
        return math.prod(-(-side // self.stride) for side in self.size)

    def flops(self, batch_size):
        """Returns the operations of any one pass on a batch.

        2 · b · positions · h · w · in · out: forward, to the input and to the
        kernel alike (where a stride leaves pixels out, the backward pass to the
        input multiplies no more than that either).
        """
        return 2 * batch_size * self.positions * math.prod(self.kernel)

    def products(self, batch_size):
        """Returns {pass: (m, k, n)}, the matrix product [m, k] × [k, n] of it.

        With the images' patches as rows (im2col): patches × kernel, gradient
        × kernel transposed, patches transposed × gradient.
        """
        *patch, channels = self.kernel
        rows, columns = batch_size * self.positions, math.prod(patch)
        return {
            FORWARD: (rows, columns, channels),
            INPUT: (rows, channels, columns),
            KERNEL: (columns, rows, channels),
        }

    def __str__(self):
        height, width, inputs, outputs = self.kernel
        return (
            f"{height}x{width}, {inputs} -> {outputs}, "
            f"{self.size[0]}x{self.size[1]}, stride {self.stride}"
        )


def of(classifier):
    """Returns {Convolution: [names of the layers]}, in the network's order."""
    import keras

    found = collections.defaultdict(list)
    for layer in classifier.layers:
        if isinstance(layer, keras.layers.Conv2D):
            convolution = Convolution(
                tuple(layer.input.shape[1:3]),
                tuple(layer.kernel.shape),
                layer.strides[0],
            )
            found[convolution].append(layer.name)
    return dict(found)


def passes_of(num_steps, is_first):
    """Returns {pass: how many batches} of one convolution in an ATAT step.

    The attack goes forward and back to the images at each step; the teacher
    forward once; the student forward and back on clean and adversarial images.
    Nobody asks the update for the gradient to the images, which only the first
    layer would give.
    """
    return {
        FORWARD: num_steps + 1 + 2,
        INPUT: num_steps + (0 if is_first else 2),
        KERNEL: 2,
    }


def functions(convolution, batch_size):
    """Returns {pass: (function, its matrix product's, repeats)}.

    Both functions do their work `repeats` times and then return.
    """
    flops = convolution.flops(batch_size)
    repeats = math.ceil(_OPERATIONS_TIMED / flops)
    repeats = min(max(repeats, 1), _MOST_REPEATS)
    alone = _passes(convolution, batch_size)
    products = convolution.products(batch_size)
    return {
        name: (
            _repeated(alone[name], repeats),
            _repeated(product(*products[name]), repeats),
            repeats,
        )
        for name in products
    }


def _passes(convolution, batch_size):
    import tensorflow as tf

    shape = (batch_size, *convolution.size, convolution.kernel[2])
    x, kernel = _random(shape), _random(convolution.kernel)
    strides = [1, convolution.stride, convolution.stride, 1]
    settings = {"strides": strides, "padding": "SAME"}
    gradient = _random(tf.nn.conv2d(x, kernel, **settings).shape)

    forward = tf.function(lambda *a: tf.nn.conv2d(*a, **settings))
    to_input = tf.function(
        lambda k, g: tf.raw_ops.Conv2DBackpropInput(
            input_sizes=shape, filter=k, out_backprop=g, **settings
        )
    )
    to_kernel = tf.function(
        lambda x, g: tf.raw_ops.Conv2DBackpropFilter(
            input=x,
            filter_sizes=convolution.kernel,
            out_backprop=g,
            **settings,
        )
    )
    return {
        FORWARD: lambda: forward(x, kernel),
        INPUT: lambda: to_input(kernel, gradient),
        KERNEL: lambda: to_kernel(x, gradient),
    }


def product(m, k, n):
    """Returns a function that multiplies matrices [m, k] × [k, n], float32."""
    import tensorflow as tf

    left, right = _random((m, k)), _random((k, n))
    multiplied = tf.function(tf.linalg.matmul)
    return lambda: multiplied(left, right)


def _random(shape):
    import tensorflow as tf

    draw = np.random.default_rng(0)
    return tf.constant(draw.standard_normal(tuple(shape), np.float32))


def _repeated(function, repeats):
    def run():
        for _ in range(repeats):
            function()

    return run
