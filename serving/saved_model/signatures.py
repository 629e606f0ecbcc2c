"""A classifier as the signatures that a server answers, attention included.

Everything is graph: no Python function, no Keras object is needed to run what
is saved.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from atat_tf import grad_cam, losses
from atat_tf.errors import InputError, expect_known
from atat_tf.models import classifiers, graphs

# A file that says it holds more pixels is refused before it is decoded.
MAX_PIXELS = 2**26
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Height and width stand in bytes 16 to 24 of a PNG file.
_PNG_HEADER = 24
_Outputs = dict[str, tf.Tensor]


class ExportedClassifier(tf.Module):
    """A classifier, and its teacher if there is one, ready to be saved.

    Every image's answer depends on that image alone, so that a server may
    batch requests as it likes.

    Attributes:
      layer: name of the layer whose attention is answered.
      score: of `grad_cam.SCORES`, the class score that attention explains.
      closed_form: whether that attention needs no gradient.
      image_shape: (H, W, C).
      num_classes: k.
      class_names: of the k classes, in order.
      reads_files: whether PNG and JPEG files are images of its channels.
    """

    def __init__(
        self,
        classifier: keras.Model,
        layer: str | None = None,
        teacher: keras.Model | None = None,
        score: str = "logit",
        class_names: Sequence[str] = (),
    ):
        """Takes what is to be served.

        Args:
          classifier: functional, float32 [n, H, W, C] in [0, 1] -> logits
            [n, k].
          layer: where attention is read; None for the last map with spatial
            extent.
          teacher: a model of the same layers, for `monitor`; or None.
          score: of `grad_cam.SCORES`.
          class_names: k texts, for `about`; without any they are the numbers.

        Raises:
          InputError: the layer does not exist or has no spatial extent, or
            there is no such score, or not a name for each class.
        """
        expect_known("a class score", score, grad_cam.SCORES)
        super().__init__(name="served_classifier")
        self.layer = classifiers.attention_layer(classifier, layer)
        self.score = score
        self._student = _Explained(classifier, self.layer, score)
        self._teacher = (
            _Explained(teacher, self.layer, score) if teacher else None
        )
        explained = [e for e in (self._student, self._teacher) if e]
        self._saved = [v for e in explained for v in e.variables()]
        self.closed_form = self._student.head is not None
        self.image_shape = tuple(classifier.input_shape[1:])
        self.num_classes = classifier.output_shape[-1]
        self.reads_files = self.image_shape[-1] in (1, 3)
        self.class_names = tuple(class_names) or tuple(
            map(str, range(self.num_classes))
        )
        if len(self.class_names) != self.num_classes:
            raise InputError(
                f"Expected {self.num_classes} class names. Received: "
                f"{len(self.class_names)}."
            )

    def signatures(self) -> dict[str, Callable]:
        """Returns {name: concrete function}, as `tf.saved_model.save` takes.

        Inputs are named as the arguments of the functions below, outputs as
        their keys.
        """
        images = tf.TensorSpec([None, *self.image_shape], tf.float32, "images")
        labels = tf.TensorSpec([None], tf.int64, "labels")
        files = tf.TensorSpec([None], tf.string, "image_bytes")
        arguments = {
            "serving_default": (self.serving_default, images),
            "explain": (self.explain, images, labels),
            "predict": (self.predict, images),
            "about": (self.about, labels),
        }
        if self.reads_files:
            arguments["decode_predict"] = (self.decode_predict, files)
        if self._teacher:
            arguments["monitor"] = (self.monitor, images)
        return {
            name: tf.function(method).get_concrete_function(*specs)
            for name, (method, *specs) in arguments.items()
        }

    def serving_default(self, images: tf.Tensor) -> _Outputs:
        """Returns predictions, and the attention of the predicted classes.

        Args:
          images: float32 [n, H, W, C] in [0, 1].

        Returns:
          "logits" and "probabilities" float32 [n, k], "classes" int64 [n],
          "attention" float32 [n, h, w] in [0, 1] (each map divided by its
          maximum) and "attention_raw", Eq. 3 as it is.
        """
        logits, maps = self._student(self._checked(images))
        return {**_predictions(logits), **_attention(maps)}

    def explain(self, images: tf.Tensor, labels: tf.Tensor) -> _Outputs:
        """Returns the attention of the classes that the caller names.

        Args:
          images: float32 [n, H, W, C] in [0, 1].
          labels: int64 [n], from 0 to k - 1.

        Returns:
          "logits", "attention" and "attention_raw" as `serving_default`.
        """
        images = self._checked(images)
        labels = self._checked_labels(labels, images)
        logits, maps = self._student(images, labels)
        return {"logits": logits, **_attention(maps)}

    def predict(self, images: tf.Tensor) -> _Outputs:
        """Returns "logits", "probabilities" and "classes" alone."""
        return _predictions(self._student.logits(self._checked(images)))

    def decode_predict(self, image_bytes: tf.Tensor) -> _Outputs:
        """Returns `serving_default` of PNG or JPEG files.

        Args:
          image_bytes: string [n], each a whole file. Other sizes are resized
            to H × W (bilinear, antialiased); alpha is dropped; a rotation
            that a JPEG only notes is not carried out.
        """
        image_bytes = tf.ensure_shape(image_bytes, [None])
        images = tf.map_fn(
            lambda data: decoded(data, self.image_shape),
            image_bytes,
            parallel_iterations=1,  # one large picture in memory at a time
            fn_output_signature=tf.TensorSpec(self.image_shape, tf.float32),
        )
        return self.serving_default(images)

    def monitor(self, images: tf.Tensor) -> _Outputs:
        """Returns `serving_default` and how far attention is off the teacher's.

        A signal to watch over many requests (the inputs drift, somebody
        probes), not a defense: who attacks the classifier can attack it too.

        Args:
          images: float32 [n, H, W, C] in [0, 1].

        Returns:
          Also "attention_shift" float32 [n]: Eq. 4 of the student's and the
          teacher's maps for the class that the student predicts.
        """
        if self._teacher is None:
            raise InputError(
                "Expected a teacher, to monitor the attention. Received: none."
            )
        images = self._checked(images)
        logits, maps = self._student(images)
        predictions = _predictions(logits)
        _, teacher_maps = self._teacher(images, predictions["classes"])
        shift = losses.attention_distance(
            {self.layer: teacher_maps}, {self.layer: maps}
        )
        return {
            **predictions,
            **_attention(maps),
            "attention_shift": shift,
        }

    def about(self, labels: tf.Tensor) -> _Outputs:
        """Returns what a client should know of classes, a row for each.

        A row each, since a server that merges requests refuses other outputs.

        Args:
          labels: int64 [n], from 0 to k - 1.

        Returns:
          "class_names" and "attention_layer", the same for all, string [n].
        """
        labels = self._in_range(labels)
        names = tf.gather(tf.constant(self.class_names), labels)
        return {
            "class_names": names,
            "attention_layer": tf.fill(tf.shape(labels), self.layer),
        }

    def _checked(self, images):
        # First of all: a kernel may end the process on a wrong rank.
        images = tf.ensure_shape(images, [None, *self.image_shape])
        in_range = (images >= 0.0) & (images <= 1.0)  # false for NaN too
        return _asserted(
            images,
            tf.reduce_all(in_range),
            "Expected finite pixels from 0 to 1 (divide 0-255 images by "
            "255). Received values from",
            tf.reduce_min(images),
            "to",
            tf.reduce_max(images),
        )

    def _in_range(self, labels):
        labels = tf.ensure_shape(labels, [None])
        return _asserted(
            labels,
            tf.reduce_all((labels >= 0) & (labels < self.num_classes)),
            f"Expected labels from 0 to {self.num_classes - 1}. Received",
            labels,
        )

    def _checked_labels(self, labels, images):
        labels = self._in_range(labels)
        counts = tf.shape(labels)[0], tf.shape(images)[0]
        return _asserted(
            labels,
            tf.equal(*counts),
            "Expected one label an image. Received labels and images",
            *counts,
        )


def _asserted(value, holds, *told):
    """Returns a tensor; a graph in which the rule is broken tells so."""
    with tf.control_dependencies([tf.debugging.Assert(holds, [*told])]):
        return tf.identity(value)


def decoded(data: tf.Tensor, image_shape: tuple[int, int, int]) -> tf.Tensor:
    """Returns one image from the bytes of a PNG or JPEG file.

    Args:
      data: string [].
      image_shape: (H, W, C), C of 1 or 3.

    Returns:
      float32 [H, W, C] in [0, 1].
    """
    height, width, channels = image_shape
    is_png = tf.strings.substr(data, 0, len(_PNG)) == _PNG
    is_png &= tf.strings.length(data) >= _PNG_HEADER
    is_jpeg = tf.strings.substr(data, 0, len(_JPEG)) == _JPEG
    data = _asserted(
        data,
        is_png | is_jpeg,
        "Expected the bytes of a PNG or JPEG file. Received a string of length",
        tf.strings.length(data),
    )
    pixels = tf.cond(is_png, lambda: _png(data), lambda: _jpeg(data))
    # From bytes at once: as floats a large picture would be four times larger.
    image = tf.image.resize(pixels, (height, width), antialias=True)
    image = tf.cast(image, tf.float32) / 255.0
    if channels == 1:
        image = tf.image.rgb_to_grayscale(image)
    # A weighted mean may end a rounding error above 1.
    return tf.clip_by_value(tf.ensure_shape(image, image_shape), 0.0, 1.0)


def _png(data):
    header = tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.uint8)
    size = tf.reshape(tf.cast(header, tf.int64), (2, 4))
    size = tf.reduce_sum(
        size * tf.constant([2**24, 2**16, 2**8, 1], tf.int64), 1
    )
    with tf.control_dependencies([_size_check(size)]):
        return tf.io.decode_png(data, channels=3)


def _jpeg(data):
    size = tf.cast(tf.io.extract_jpeg_shape(data)[:2], tf.int64)
    with tf.control_dependencies([_size_check(size)]):
        # The accurate transform is the one that Pillow uses as well.
        return tf.io.decode_jpeg(
            data, channels=3, dct_method="INTEGER_ACCURATE"
        )


def _size_check(size):
    return tf.debugging.Assert(
        # Two products of 32-bit numbers fit into 64 bits.
        tf.reduce_prod(size) <= MAX_PIXELS,
        [f"Expected an image of at most {MAX_PIXELS} pixels. Received", size],
    )


class _Explained:
    """A classifier with its attention, in inference mode.

    No tf.Module, which would have Keras' objects saved too: TensorFlow's own
    restoring, that of a server, would then fill copies of the variables and
    leave the ones that the signatures read without a value.
    """

    def __init__(self, classifier, layer, score):
        self._classifier = classifier
        self._score = score
        self._tapped = graphs.with_taps(classifier, [layer])
        self.head = classifiers.pooled_head(classifier, layer)

    def __call__(self, images, labels=None):
        return grad_cam.explanation(
            self._tapped, images, labels, self.head, self._score
        )

    def logits(self, images):
        return self._classifier(images, training=False)

    def variables(self):
        """Returns the tf.Variables behind Keras' own."""
        return [variable.value for variable in self._classifier.variables]


def _predictions(logits):
    return {
        "logits": logits,
        "probabilities": tf.nn.softmax(logits),
        "classes": tf.argmax(logits, axis=-1, output_type=tf.int64),
    }


def _attention(maps):
    return {
        "attention": grad_cam.scaled_for_reading(maps),
        "attention_raw": maps,
    }
