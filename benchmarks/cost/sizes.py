"""What the cost of a network grows with: parameters, FLOPs, activations."""

import keras
import numpy as np

from atat_tf.models import graphs


def of(classifier):
    """Returns {"parameters", "flops", "activations"} of one image."""
    return {
        "parameters": classifier.count_params(),
        "flops": graphs.flops_per_image(classifier),
        "activations": activations(classifier),
    }


def activations(classifier):
    """Returns the numbers in all layers' outputs for one image."""
    return sum(
        int(np.prod(layer.output.shape[1:]))
        for layer in classifier.layers
        if not isinstance(layer, keras.layers.InputLayer)
    )
