"""What the cost of a network grows with: parameters, FLOPs, activations."""

import os
import pathlib
import platform

import keras
import numpy as np

from atat_tf import models, run_folder


def of(classifier):
    """Returns {"parameters", "flops", "activations"} of one image."""
    return {
        "parameters": classifier.count_params(),
        "flops": models.flops_per_image(classifier),
        "activations": activations(classifier),
    }


def activations(classifier):
    """Returns the numbers in all layers' outputs for one image."""
    return sum(
        int(np.prod(layer.output.shape[1:]))
        for layer in classifier.layers
        if not isinstance(layer, keras.layers.InputLayer)
    )


def machine():
    """Returns one sentence: processor, cores, load, versions, commit."""
    words = platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            words = line.partition(":")[2].strip()
            break
    return (
        f"{words}, {len(os.sched_getaffinity(0))} cores, load "
        f"{os.getloadavg()[0]:.1f}, Keras {keras.__version__}, commit "
        f"{run_folder.commit()}"
    )
