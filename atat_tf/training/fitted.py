"""Keras' entries to training, which look at the data before Keras does."""

import os
from typing import Any

import keras
import tensorflow as tf

from atat_tf.data import training_data
from atat_tf.errors import InputError, expect
from atat_tf.training import batch


class FittedModel(keras.Model):
    """A Keras model around a student: what is saved is the student.

    What inherits sets both attributes, and takes the steps.

    Args:
      name: of the model.

    Attributes:
      student: keras.Model, images -> logits.
      bounds: (lowest, highest) pixel.
    """

    student: keras.Model
    bounds: tuple[float, float]

    def __init__(self, name: str):
        # Images are not rounded to what the student's layers compute in.
        super().__init__(name=name, dtype="float32", autocast=False)
        # A function, for Keras would take the model for a layer of this one.
        self._saved = lambda: self.student
        # Batches that only XLA's steps have met; see `_unpack`.
        self._unfit = keras.metrics.Sum(name="unfit")

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        *args: Any,
        validation_data: Any = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit`, after a look at the data.

        Callbacks that monitor an accuracy or a term of the loss need no mode.

        Raises:
          InputError: images of another size or range, labels that are no
            classes of the student, or weights that are not finite and >= 0.
        """
        training_data.expect_batch_size(batch_size)
        x, y = training_data.as_examples(x, y)
        training_data.expect_data(x, y, self.student, self.bounds)
        training_data.expect_weights(
            kwargs.get("sample_weight"), kwargs.get("class_weight")
        )
        images, labels = validation_data, None
        more: list[Any] = []
        if isinstance(validation_data, (tuple, list)):
            images, labels, *more = validation_data
            training_data.expect_weights(*more[:1] or [None])
        images, labels = training_data.as_examples(images, labels)
        training_data.expect_data(images, labels, self.student, self.bounds)
        validation_data = images
        if labels is not None:
            validation_data = images, labels, *more
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = list(keras.tree.flatten(callbacks or ()))
            self._tell_modes(callbacks)
            told = keras.callbacks.LambdaCallback(
                on_epoch_end=self._expect_fit_batches
            )
            callbacks = [told, *callbacks]
        with training_data.sentences():
            return super().fit(
                x,
                y,
                batch_size,
                *args,
                validation_data=validation_data,
                callbacks=callbacks,
                **kwargs,
            )

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Evaluates as `keras.Model.evaluate`, after a look at the data.

        Raises:
          InputError: as for `fit`.
        """
        training_data.expect_batch_size(batch_size)
        x, y = training_data.as_examples(x, y)
        training_data.expect_data(x, y, self.student, self.bounds)
        training_data.expect_weights(kwargs.get("sample_weight"))
        with training_data.sentences():
            results = super().evaluate(x, y, batch_size, **kwargs)
        self._expect_fit_batches()
        return results

    def saves(self, model: keras.Model) -> None:
        """Has `save` and `export` write a model in the student's place.

        Args:
          model: one over the student's variables.
        """
        self._saved = lambda: model

    def save(
        self,
        filepath: str | os.PathLike,
        overwrite: bool = True,
        **kwargs: Any,
    ) -> None:
        """Saves the student as `keras.Model.save`, and so does ModelCheckpoint.

        After `saves` it is the model given there.
        `keras.saving.load_model` gives it back in safe mode, and its optimizer
        is not among it.
        """
        self._saved().save(filepath, overwrite=overwrite, **kwargs)

    def export(
        self, filepath: str | os.PathLike, *args: Any, **kwargs: Any
    ) -> None:
        """Exports as `keras.Model.export` what `save` would save."""
        self._saved().export(filepath, *args, **kwargs)

    def get_config(self) -> dict:
        """Raises InputError: a trainer is no layer of another model.

        Raises:
          InputError: always.
        """
        raise InputError(
            "Expected the student, which `save` writes and `student` is, in "
            "the place of a trainer, which has no config. Received: a call of "
            "get_config."
        )

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras' own takes a first batch apart to build what is missing, and
        # breaks on the per-replica batches of tf.distribute. Nothing is
        # missing here.
        pass

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.student(
            batch.as_pixels(images, self.bounds), training=training
        )

    def _unpack(self, data):
        """Returns images, labels and weights, as `batch.Batch` has them.

        XLA leaves assertions out. There a batch that does not fit is counted,
        and the epoch ends with the sentence.
        """
        given = batch.prepared(
            data, self.student, self.bounds, asserts=not self.jit_compile
        )
        if self.jit_compile:
            self._unfit.update_state(tf.cast(~given.is_fit, tf.float32))
        return given.images, given.labels, given.weights

    def _modes(self):
        """Returns {name of a metric: "min" or "max"}, which value is better."""
        return {}

    def _tell_modes(self, callbacks):
        """Tells callbacks what is better; Keras knows it of its own metrics."""
        modes = self._modes()
        for callback in callbacks:
            monitored = str(getattr(callback, "monitor", ""))
            name = monitored.removeprefix("val_")
            if getattr(callback, "mode", None) == "auto" and name in modes:
                callback.mode = modes[name]

    def _expect_fit_batches(self, *_):
        """Raises InputError if XLA's steps have met batches that do not fit."""
        count = int(self._unfit.result())
        self._unfit.reset_state()
        low, high = self.bounds
        expect(
            not count,
            f"pixels from {low:g} to {high:g}, the attack's bounds, labels of "
            f"{self.student.output_shape[-1]} classes and finite sample "
            "weights >= 0 in every batch",
            other_batches=count,
        )
