"""How good a network's attention maps are as explanations, in numbers.

A map that is drawn over an image invites trust. These ask whether it depends
on the class, on the network, and whether the places it names matter.
"""

import contextlib
import dataclasses
import random
from collections.abc import Callable

import keras
import numpy as np
import scipy.stats
import tensorflow as tf

from atat_tf import grad_cam
from atat_tf.attacks import linf
from atat_tf.errors import InputError
from atat_tf.evaluation import accuracy
from atat_tf.evaluation.attention import views
from atat_tf.models import files as model_files

# Classes that a map is held against besides its own: those of the highest
# scores, and so all of them where there are ten.
_OTHERS = 9
# Points of a deletion or insertion curve after the first, as in xplique.
STEPS = 10
# The stream of random numbers of the network of random weights.
_STRANGER = 1
# {field of Quality: which values are good}, as tables of them say.
GOOD = {
    "class_sensitivity": "high; 0 is one map for all classes",
    "deletion": "low",
    "insertion": "high",
    "stability": "high, if the class sensitivity is",
    "parameter_randomisation": "near 1; 0 shows the image, not the network",
}


@dataclasses.dataclass(frozen=True)
class Quality:
    """Numbers of each image's explanation; NaN where nothing can be said.

    Attributes:
      class_sensitivity: float64 [n] in [0, 1], `class_sensitivity`.
      deletion: float64 [n] in [0, 1], `deletion`; lower is better.
      insertion: float64 [n] in [0, 1], `insertion`; higher is better.
      stability: float64 [n] in [0, 1], 1 where an attack does not move the
        map; None without an attack.
      parameter_randomisation: float64 [n] in [0, 2],
        `parameter_randomisation`.
    """

    class_sensitivity: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    stability: np.ndarray | None
    parameter_randomisation: np.ndarray

    def means(self) -> dict[str, float]:
        """Returns {name: mean over the images}, without what was not run."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
        }
        return {
            name: float(np.nanmean(value))
            for name, value in values.items()
            if value is not None and not np.isnan(value).all()
        }


def quality(
    classifier: keras.Model,
    layer: str,
    images: np.ndarray,
    labels: np.ndarray,
    attack: linf.LinfAttack | None = None,
    score: str = "logit",
    seed: int = 0,
) -> Quality:
    """Returns the Quality of a classifier's maps at one layer.

    Args:
      classifier: functional keras.Model, float32 [n, H, W, C] in [0, 1] ->
        logits [n, k].
      layer: whose maps are looked at.
      images: float32 [n, H, W, C] in [0, 1].
      labels: integers [n], the classes that are explained.
      attack: for the stability; None for none.
      score: of `grad_cam.SCORES`.
      seed: of the attack's random starts and of the random network.
    """
    viewer = views.Viewer(classifier, layer, seed, score=score)
    seen = viewer.view(images, labels)
    own = seen.maps
    probabilities = _probabilities(classifier)
    stability = None
    if attack is not None:
        stability = 1 - viewer.attended(attack, images, labels).shift
    return Quality(
        class_sensitivity(viewer, own, images, labels, seen.logits),
        deletion(probabilities, own, images, labels),
        insertion(probabilities, own, images, labels),
        stability,
        parameter_randomisation(
            classifier, layer, own, images, labels, score, seed
        ),
    )


def class_sensitivity(
    viewer: views.Viewer,
    own: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
) -> np.ndarray:
    """Returns 1 − the mean cosine of an image's map with other classes' maps.

    0 is a map that is the same whatever class is asked for. The other classes
    are those with the nine highest scores.

    Args:
      viewer: of the network.
      own: float [n, h, w], >= 0, maps of the labels.
      images: float32 [n, H, W, C] in [0, 1].
      labels: integers [n].
      logits: float [n, k], the network's.

    Returns:
      float64 [n] in [0, 1].
    """
    others = np.array(logits, np.float64)
    np.put_along_axis(others, np.asarray(labels)[:, None], -np.inf, axis=1)
    ranked = np.argsort(-others, axis=1, kind="stable")
    count = min(_OTHERS, others.shape[1] - 1)
    distances = [
        grad_cam.cosine_distance(
            own, viewer.view(images, ranked[:, place].astype(np.int32)).maps
        )
        for place in range(count)
    ]
    return np.mean(distances, axis=0)


def deletion(
    probabilities: Callable[[np.ndarray], np.ndarray],
    own: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    steps: int = STEPS,
) -> np.ndarray:
    """Returns the area under the probability as what the map names goes.

    Petsiuk et al. 2018: pixels turn black, those of the highest attention
    first. A good explanation names what the class cannot do without, so the
    probability falls at once.

    Args:
      probabilities: float32 [b, H, W, C] in [0, 1] -> float [b, k].
      own: float [n, h, w], >= 0, enlarged bilinearly to the images.
      images: float32 [n, H, W, C] in [0, 1].
      labels: integers [n].
      steps: points of the curve after the first.

    Returns:
      float64 [n] in [0, 1].
    """
    return _area(probabilities, own, images, labels, steps, removes=True)


def insertion(
    probabilities: Callable[[np.ndarray], np.ndarray],
    own: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    steps: int = STEPS,
) -> np.ndarray:
    """Returns the area under the probability as what the map names appears.

    On a black image, the pixels of the highest attention first; a good
    explanation makes the probability rise at once. Arguments and result as
    for `deletion`.
    """
    return _area(probabilities, own, images, labels, steps, removes=False)


def _area(probabilities, own, images, labels, steps, removes):
    count, height, width = images.shape[:3]
    large = tf.image.resize(own[..., None], (height, width)).numpy()
    order = np.argsort(-large.reshape(count, -1), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
    rank = rank.reshape(count, height, width, 1)
    curve = []
    for pixels in np.linspace(0, height * width, steps + 1).astype(int):
        named = rank < pixels
        seen = np.where(named != removes, images, np.float32(0))
        curve.append(probabilities(seen)[np.arange(count), labels])
    return np.trapezoid(np.array(curve, np.float64), axis=0) / steps


def parameter_randomisation(
    classifier: keras.Model,
    layer: str,
    own: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    score: str = "logit",
    seed: int = 0,
) -> np.ndarray:
    """Returns 1 − the rank correlation with the map of a random network.

    Adebayo et al. 2018: a map that stays when every weight is drawn anew
    shows the image, and not what the network has learnt. 0 is such a map.

    Args:
      classifier, layer, images, labels, score: as for `quality`.
      own: float [n, h, w], maps of the classifier.
      seed: of the random weights.

    Returns:
      float64 [n] in [0, 2]; NaN where one of the maps is constant, or the
      layers cannot be made anew.
    """
    result = np.full(len(own), np.nan)
    # Not the seed itself: where a network was trained from it, the random
    # weights would be those that it began with.
    own_stream = np.random.SeedSequence((seed, _STRANGER)).generate_state(1)
    try:
        with _seeded(int(own_stream[0])):
            stranger = model_files.with_random_weights(classifier)
    except InputError:
        return result
    other = views.Viewer(stranger, layer, score=score).view(images, labels)
    for i, (mine, its) in enumerate(zip(own, other.maps, strict=True)):
        if np.ptp(mine) > 0 and np.ptp(its) > 0:
            ranked = scipy.stats.spearmanr(mine.ravel(), its.ravel())
            result[i] = 1 - ranked.statistic
    return result


@contextlib.contextmanager
def _seeded(seed):
    """Draws from a seed inside, and as the caller's own seed has it after."""
    states = random.getstate(), np.random.get_state()
    # TensorFlow tells no state: this number depends on it.
    later = tf.random.uniform([], maxval=2**31 - 1, dtype=tf.int32)
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        keras.utils.set_random_seed(int(later))
        random.setstate(states[0])
        np.random.set_state(states[1])


def _probabilities(classifier):
    logits = accuracy.logits_function(classifier)

    @tf.function(reduce_retracing=True)
    def of_batch(images):
        return tf.nn.softmax(logits(images))

    def of_all(images, batch_size=100):
        return np.concatenate(
            [
                of_batch(tf.constant(images[first : first + batch_size]))
                for first in range(0, len(images), batch_size)
            ]
        )

    return of_all
