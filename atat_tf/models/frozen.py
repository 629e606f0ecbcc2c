"""An inference-only copy of a classifier that is cheap to attack.

Batch norm is folded into the convolution before it, or is one multiplication
and one addition, and its gradient no longer sums over the batch for weights
that nobody asks about. For evaluation, and for the attack in a training step.
"""

import collections
import inspect
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from atat_tf.models import graphs
from atat_tf.models import layers as model_layers

# What is lost by rounding; a larger difference is another function.
_AGREEMENT = 1e-5
_SAMPLE = 4
# What the kernel of batch norms adds to a variance: one power of two.
_EPSILON = 2.0**-10


def logits_function(classifier: keras.Model) -> Callable:
    """Returns images -> logits in inference mode, to be attacked.

    Convolutions, batch norms and dense layers keep the weights of now. Where
    the classifier does not `fit`, it is the classifier itself.

    Args:
      classifier: keras.Model, float32 [b, H, W, C] in [0, 1] -> logits.
    """
    return (
        weights_of_now(classifier) if fits(classifier) else _exact(classifier)
    )


def refreshed(classifier: keras.Model) -> Callable:
    """Returns a function without argument, whose result is images -> logits.

    For weights that move: each call has the weights of then, inside a traced
    function those of each time that it runs. Batch norms are folded at the
    call, once for all steps of an attack.

    Args:
      classifier: as for `logits_function`; `fits` is asked here.
    """
    if fits(classifier):
        return lambda: weights_of_now(classifier)
    return lambda: _exact(classifier)


def fits(classifier: keras.Model) -> bool:
    """Returns whether `weights_of_now` is the classifier's own function.

    That is so where it is a float32 functional model with one input and
    output, and its logits on random images are the same. Not for a graph that
    is being traced.

    Args:
      classifier: as for `logits_function`.
    """
    return _can_be_rebuilt(classifier) and _agree(
        classifier, _exact(classifier), weights_of_now(classifier)
    )


def weights_of_now(classifier: keras.Model) -> Callable:
    """Returns images -> logits by the weights at the time of this call.

    Args:
      classifier: one that `fits`.
    """
    graph = graphs.of_functional(classifier)
    replaced = _replacements(graph)

    def frozen(images):
        # A layer may have a name that TensorFlow takes inside a scope only.
        with tf.name_scope("frozen"):
            (logits,) = graph.run(
                [images], lambda layer: _inference(layer, replaced)
            )
        return logits

    return frozen


def _exact(classifier):
    def exact(images):
        return classifier(images, training=False)

    return exact


def _can_be_rebuilt(classifier):
    return (
        graphs.recorded(classifier) is not None
        and len(classifier.inputs) == len(classifier.outputs) == 1
        and None not in classifier.input_shape[1:]
        and all(layer.compute_dtype == "float32" for layer in classifier.layers)
        # Integer kernels are multiplied by scales of their own.
        and not any(
            getattr(layer, "quantization_mode", None)
            for layer in classifier.layers
        )
    )


def _agree(classifier, exact, frozen):
    draw = np.random.default_rng(0)
    shape = (_SAMPLE, *classifier.input_shape[1:])
    images = tf.constant(draw.random(shape, np.float32))
    expected, received = exact(images).numpy(), frozen(images).numpy()
    largest = np.abs(expected).max(initial=np.finfo(np.float32).tiny)
    # False for NaN too.
    return bool(np.abs(received - expected).max() <= _AGREEMENT * largest)


def _inference(layer, replaced):
    """Returns what is called in a layer's place: mode and weights fixed."""

    def call(*args, **kwargs):
        if id(layer) in replaced:
            return replaced[id(layer)](*args)
        # As Keras does, whatever the model was built with.
        if "training" in inspect.signature(layer.call).parameters:
            kwargs["training"] = False
        return model_layers.by_fewer_operations(layer)(*args, **kwargs)

    return call


def _replacements(graph):
    """Returns {id of a layer: function of its input}, weights as tensors."""
    folded = _folded(graph)
    norms = {id(norm) for _, norm in folded}
    scales = {id(layer): _scale_and_shift(norm) for layer, norm in folded}
    replaced = {}
    for call in graph.calls:
        layer = call.layer
        if id(layer) in norms:
            replaced[id(layer)] = tf.identity
        elif _is_plain_convolution(layer):
            replaced[id(layer)] = _convolution(layer, scales.get(id(layer)))
        elif type(layer) is layers.Dense:
            replaced[id(layer)] = _dense(layer)
        elif _is_channel_norm(call):
            replaced[id(layer)] = _affine(*_scale_and_shift(layer))
    return replaced


def _folded(graph):
    """Returns [(convolution, norm)] where nothing else reads the former."""
    num_calls = collections.Counter(id(call.layer) for call in graph.calls)
    num_readers = collections.Counter(
        id(tensor) for call in graph.calls for tensor in call.inputs
    )
    pairs = []
    for call in filter(_is_channel_norm, graph.calls):
        (tensor,) = call.inputs
        before = graph.made_by(tensor)
        if (
            before is not None
            and _is_plain_convolution(before.layer)
            and num_calls[id(before.layer)] == num_calls[id(call.layer)] == 1
            and num_readers[id(tensor)] == 1
        ):
            pairs.append((before.layer, call.layer))
    return pairs


def _is_plain_convolution(layer):
    return (
        type(layer) is layers.Conv2D
        and layer.data_format == "channels_last"
        and layer.groups == 1
        and layer.dilation_rate == (1, 1)
        and layer.activation is keras.activations.linear
    )


def _is_channel_norm(call):
    # A subclass of one's own may compute something else.
    kinds = layers.BatchNormalization, model_layers.BatchNormalization
    return type(call.layer) in kinds and (
        call.layer.axis in (-1, len(call.outputs.shape) - 1)
    )


def _scale_and_shift(norm):
    """Returns float32 [c] each, with norm(x) = scale · x + shift."""
    scale = tf.math.rsqrt(_now(norm.moving_variance) + norm.epsilon)
    if norm.gamma is not None:
        scale *= _now(norm.gamma)
    shift = -_now(norm.moving_mean) * scale
    return scale, shift if norm.beta is None else shift + _now(norm.beta)


def _now(variable):
    """Returns a variable's value, which later assignments leave alone."""
    return tf.identity(tf.convert_to_tensor(variable))


def _dense(layer):
    kernel = _now(layer.kernel)
    bias = _now(layer.bias) if layer.use_bias else 0.0
    return lambda x: layer.activation(tf.linalg.matmul(x, kernel) + bias)


def _affine(scale, shift):
    """Returns x -> scale · x + shift, by one operation on maps.

    It is TensorFlow's kernel of batch norms, which takes a ReLU behind it
    along; its own gradient would also be that of scale and shift.
    """

    @tf.custom_gradient
    def affine(x):
        def gradient(upstream):
            return _affine(scale, tf.zeros_like(shift))(upstream)

        if len(x.shape) != 4:
            return x * scale + shift, gradient
        outputs, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=scale,
            offset=shift,
            mean=tf.zeros_like(shift),
            variance=tf.ones_like(scale) - _EPSILON,
            epsilon=_EPSILON,
            is_training=False,
        )
        return outputs, gradient

    return affine


def _convolution(layer, scale_and_shift):
    """Returns a convolution of constants, with a norm behind it or None."""
    kernel = _now(layer.kernel)
    shift = _now(layer.bias) if layer.use_bias else None
    if scale_and_shift is not None:
        scale, after = scale_and_shift
        kernel *= scale
        shift = after if shift is None else shift * scale + after
    strides, padding = layer.strides, layer.padding.upper()
    size_is_odd = all(size % 2 for size in kernel.shape[:2])
    keeps_size = strides == (1, 1) and padding == "SAME" and size_is_odd
    if keeps_size:
        convolve = _same_convolution(kernel)
    else:

        def convolve(x):
            return tf.nn.conv2d(x, kernel, strides, padding)

    if shift is None:
        return convolve
    return lambda x: tf.nn.bias_add(convolve(x), shift)


def _same_convolution(kernel):
    """Returns a convolution whose gradient is written as one.

    With the kernel turned around it is the same sum, and convolution is the
    faster kernel of the two on processors.
    """
    turned = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])

    @tf.custom_gradient
    def convolve(x):
        def gradient(upstream):
            return tf.nn.conv2d(upstream, turned, 1, "SAME")

        return tf.nn.conv2d(x, kernel, 1, "SAME"), gradient

    return convolve
