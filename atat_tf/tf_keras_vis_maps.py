"""Attention by the methods of tf-keras-vis, an independent implementation.

A classifier, images and classes enter, maps at the layer's own size leave:
neither enlarged nor scaled.
"""

import contextlib
import io
import warnings

import numpy as np
from tf_keras_vis import (
    gradcam,
    gradcam_plus_plus,
    layercam,
    saliency,
    scorecam,
)
from tf_keras_vis.utils import scores

from atat_tf.errors import unknown

METHODS = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "scorecam": "Score-CAM",
    "layercam": "LayerCAM",
    "saliency": "saliency",
}
_CLASSES = {
    "gradcam": gradcam.Gradcam,
    "gradcam++": gradcam_plus_plus.GradcamPlusPlus,
    "scorecam": scorecam.Scorecam,
    "layercam": layercam.Layercam,
}


def expect_known(methods):
    """Raises InputError unless all names are those of methods."""
    for name in methods:
        if name not in METHODS:
            raise unknown("a method", name, METHODS)


def attention_map(method, classifier, layer, images, labels):
    """Returns a method's map of the labelled classes.

    Args:
      method: a key of METHODS.
      classifier: functional keras.Model, images -> logits.
      layer: the name of a layer with a spatial map; "saliency" reads none.
      images: float32 [b, H, W, C].
      labels: integers [b].

    Returns:
      float [b, h, w], >= 0; [b, H, W] for "saliency", the largest |∂y^c/∂x|
      over the colours.

    Raises:
      InputError: no such method.
    """
    expect_known([method])
    score = scores.CategoricalScore([int(label) for label in labels])
    images = np.asarray(images, np.float32)
    with _quiet():
        if method == "saliency":
            of = saliency.Saliency(classifier)
            return np.asarray(of(score, images, normalize_map=False))
        maps = _CLASSES[method](classifier)(
            score,
            images,
            penultimate_layer=layer,
            seek_penultimate_conv_layer=False,
            expand_cam=False,
            normalize_cam=False,
        )
    return np.asarray(maps)


@contextlib.contextmanager
def _quiet():
    """Keeps back Score-CAM's progress bars and Keras' remark on lists."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", "The structure of `inputs`")
        yield
