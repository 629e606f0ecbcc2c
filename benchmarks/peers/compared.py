"""What ours and the peers are compared on: classifiers, images, and verdicts.

Everything about TensorFlow is imported by the functions, so that commands
answer --help at once and can choose oneDNN before it loads.
"""

import dataclasses
import time

import numpy as np

from benchmarks.peers import process as peers

# Run folders that are part of the repository.
RUNS = {
    "standard": "results/small/cifar10/standard/seed0",
    "robust": "results/small/cifar10/at/seed0",
}
DATA_DIR = str(peers.ROOT.parent / "shared" / "tfds")
SAME_LOGITS = 1e-4
_BALL_TOLERANCE = 1e-6
_VEHICLES = (0, 1, 8, 9)
_HEAD_IMAGES = 5000
_TENTHS = 10


@dataclasses.dataclass(frozen=True)
class Case:
    """A classifier with images and labels.

    Attributes:
      what: a line that says what it is.
      classifier: keras.Model.
      images: uint8 [n, H, W, C].
      labels: int32 [n].
      epsilon: ε that is told apart by it, in ℓ∞.
    """

    what: str
    classifier: object
    images: np.ndarray
    labels: np.ndarray
    epsilon: float

    @property
    def num_classes(self):
        return self.classifier.output_shape[-1]

    def first(self, count):
        """Returns the case with its first images alone."""
        return dataclasses.replace(
            self, images=self.images[:count], labels=self.labels[:count]
        )


def load_dataset(data_dir):
    """Returns CIFAR-10 as the runs in `results` have read it."""
    from atat_tf.evaluation import evaluate_run

    config = evaluate_run.load_config(peers.ROOT / RUNS["robust"])
    return evaluate_run.load_dataset(config, data_dir)


def run_case(name, dataset, num_images, epsilon):
    """Returns the Case of a run folder on the first test images."""
    from atat_tf.evaluation import evaluate_run

    folder = peers.ROOT / RUNS[name]
    classifier = evaluate_run.load_classifier(folder, dataset.spec)
    split = dataset.test.take(num_images)
    what = f"{name} ({RUNS[name]})"
    return Case(what, classifier, split.images, split.labels, epsilon)


def random_case(dataset, num_images, epsilon, depth, width):
    """Returns the Case of a network as it was drawn, right by definition."""
    import keras

    from atat_tf.models import wide_resnet

    keras.utils.set_random_seed(0)
    spec = dataset.spec
    classifier = wide_resnet.wide_resnet(
        spec.image_shape, spec.num_classes, depth, width
    )
    what = f"WRN-{depth}-{width}, random weights"
    return _by_own_labels(what, classifier, dataset, num_images, epsilon)


def two_classes_case(dataset, num_images, epsilon):
    """Returns the Case of the robust body with a head: animals or vehicles."""
    is_vehicle = np.isin(dataset.train.labels, _VEHICLES).astype(np.int32)
    what = "2 classes: robust body, new head, animals or vehicles"
    return _headed_case(what, dataset, is_vehicle, num_images, epsilon)


def hundred_classes_case(dataset, num_images, epsilon):
    """Returns the Case of the robust body with a head of 100 classes.

    A class of the data set and a tenth of all brightnesses make a class.
    """
    brightness = dataset.train.images.mean((1, 2, 3))
    edges = np.quantile(brightness, np.arange(1, _TENTHS) / _TENTHS)
    tenths = np.searchsorted(edges, brightness)
    labels = (_TENTHS * dataset.train.labels + tenths).astype(np.int32)
    what = "100 classes: robust body, new head, class and tenth of brightness"
    return _headed_case(what, dataset, labels, num_images, epsilon)


def _headed_case(what, dataset, train_labels, num_images, epsilon):
    body = run_case("robust", dataset, 1, epsilon).classifier
    classifier = _with_head(
        body, dataset.train.images[:_HEAD_IMAGES], train_labels[:_HEAD_IMAGES]
    )
    return _by_own_labels(what, classifier, dataset, num_images, epsilon)


def _by_own_labels(what, classifier, dataset, num_images, epsilon):
    """Returns the Case whose labels are the predictions: all are right."""
    images = dataset.test.take(num_images).images
    labels = logits(classifier, images).argmax(-1).astype(np.int32)
    return Case(what, classifier, images, labels, epsilon)


def _with_head(body, images, labels):
    """Returns the body's network with a head fitted to its pooled maps."""
    import keras

    from atat_tf.evaluation import evaluate_run
    from atat_tf.models import wide_resnet

    pooled = keras.Model(body.input, body.get_layer("pool").output)
    features = logits(pooled, images)
    num_classes = int(labels.max()) + 1
    keras.utils.set_random_seed(0)
    head = keras.Sequential([keras.layers.Dense(num_classes, name="logits")])
    head.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    head.fit(features, labels, batch_size=100, epochs=20, verbose=0)
    config = evaluate_run.load_config(peers.ROOT / RUNS["robust"])
    size = config.backbone.depth, config.backbone.width
    classifier = wide_resnet.wide_resnet(
        body.input_shape[1:], num_classes, *size
    )
    known = {v.path: v.numpy() for v in body.variables}
    kernel, bias = head.get_weights()
    known.update({"logits/kernel": kernel, "logits/bias": bias})
    for variable in classifier.variables:
        variable.assign(known[variable.path])
    return classifier


def logits(classifier, images, batch_size=500):
    """Returns a Keras model's outputs for uint8 images or floats in [0, 1]."""
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(255)
    return np.concatenate(
        [
            classifier(images[s : s + batch_size], training=False).numpy()
            for s in range(0, len(images), batch_size)
        ]
    )


def expect_same_logits(peer, case):
    """Raises NotRun unless the peer's network is the same function."""
    ours = logits(case.classifier, case.images)
    difference = np.abs(peer.logits(case.images) - ours).max()
    if not difference <= SAME_LOGITS:
        raise peers.NotRun(f"its logits differ by {difference:.2g}")
    return float(difference)


def broken(case, adversarial):
    """Returns which images [n] are fooled, as our model and our rules see it.

    A candidate counts inside the ball and the box only.
    """
    pixels = case.images.astype(np.float32) / np.float32(255)
    distance = np.abs(adversarial - pixels).max((1, 2, 3))
    inside = (
        (distance <= case.epsilon + _BALL_TOLERANCE)
        & (adversarial.min((1, 2, 3)) >= 0)
        & (adversarial.max((1, 2, 3)) <= 1)
    )
    predictions = logits(case.classifier, adversarial).argmax(-1)
    return inside & (predictions != case.labels)


def evaluation(attacker, attacks, case, entering, only_right=True):
    """Returns which images still stand, with seconds and processor seconds.

    Args:
      attacker: Attacker of the case's classifier.
      attacks: stepped attacks; each meets what stood after the one before.
      case: Case.
      entering: bool [n], the images to begin with.
      only_right: whether misclassified ones are taken out first.
    """
    begin = time.perf_counter(), time.process_time()
    stands = entering.copy()
    if only_right:
        predictions = attacker.logits(case.images[entering]).argmax(-1)
        stands[entering] = predictions == case.labels[entering]
    for each in attacks:
        entering = np.flatnonzero(stands)
        for first in range(0, len(entering), attacker.group_size):
            group = entering[first : first + attacker.group_size]
            outcome = attacker.run(
                each, case.images[group], case.labels[group], group, 0
            )
            stands[group] = ~outcome.broken
    seconds = time.perf_counter() - begin[0]
    return stands, seconds, time.process_time() - begin[1]
