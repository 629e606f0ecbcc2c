"""Runs attacks and drops each image from its batch once it is misclassified.

What is left of several batches is put together. An adversarial example counts
once it was checked alone, inside ball and box.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import linf, randomness, stepped
from atat_tf.data import stored, training_data
from atat_tf.errors import expect
from atat_tf.evaluation import accuracy as robustness
from atat_tf.evaluation import outcome
from atat_tf.models import compilation, frozen, judging

# Batches that are attacked side by side, so that the rest of one can join the
# rest of another.
_SIDE_BY_SIDE = 8
# Steps between two looks at who is broken: 1, then as many as were done, but
# never more than a tenth of all.
_LOOKS = 10
_BALL_TOLERANCE = 1e-6
# A row beside those of the attack, which may have any name but this.
_POSITION = "attacker: position"


class Attacker:
    """Attacks one classifier.

    Args:
      classifier: keras.Model, float32 [b, H, W, C] in [0, 1] -> logits.
      batch_size: images at a time.
      batch_norm: "frozen", or "batch" for the attacked batch's statistics: then
        batches stay as they are, whole, and no image is looked at alone.
      compact: whether broken images leave their batch; verdicts are the same.
      xla: whether XLA may compile it (see `compilation`), which takes no
        Python function as a classifier.

    What is attacked has the weights of now; what candidates are checked with
    is the classifier itself.

    Raises:
      InputError: no number of images at a time, another mode of batch norms,
        or one that `accuracy.logits_function` refuses.
    """

    def __init__(
        self,
        classifier: keras.Model,
        batch_size: int = 100,
        batch_norm: str = "frozen",
        compact: bool = True,
        xla: bool = True,
    ) -> None:
        training_data.expect_batch_size(batch_size)
        self.batch_size = batch_size
        self.is_frozen = batch_norm == "frozen"
        self.logits_fn = robustness.logits_function(classifier, batch_norm)
        self._attacked_fn = (
            frozen.logits_function(classifier)
            if self.is_frozen
            else self.logits_fn
        )
        self._compacts = compact and self.is_frozen
        self._shape = tuple(classifier.input_shape[1:])
        self._starts: dict[Any, Callable] = {}
        self._steps: dict[Any, Callable] = {}
        self._by_xla = xla and compilation.by_xla()
        # Nothing here branches on tensors, and Keras' layers may not; a
        # caller's own function may. To convert what does not takes seconds.
        self._autograph = not isinstance(classifier, keras.Model)
        self._logits = tf.function(
            lambda images: self.logits_fn(as_pixels(images)),
            reduce_retracing=True,
            jit_compile=self._by_xla,
            autograph=self._autograph,
        )
        # Each in a batch of one; XLA would compile for every number of them.
        self._logits_alone = tf.function(
            lambda images: tf.map_fn(
                lambda image: self.logits_fn(image[None])[0], images
            ),
            input_signature=[tf.TensorSpec([None, *self._shape])],
            autograph=self._autograph,
        )

    @property
    def group_size(self) -> int:
        """Images that are attacked side by side."""
        return (
            _SIDE_BY_SIDE * self.batch_size
            if self.is_frozen
            else self.batch_size
        )

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns logits float [n, k] of images, uint8 or float in [0, 1].

        Raises:
          InputError: images of another range or size.
        """
        images = self._in_unit(images)
        starts = range(0, len(images), self.batch_size)
        parts = [images[s : s + self.batch_size] for s in starts]
        found = [
            self._in_bucket(
                lambda rows: {"logits": self._logits(rows["images"])},
                {"images": part},
            )
            for part in parts
        ]
        if not found:
            return np.zeros((0, self._num_classes() or 0), np.float32)
        return np.concatenate([rows["logits"].numpy() for rows in found])

    def logits_alone(self, images: np.ndarray) -> np.ndarray:
        """Returns logits as `logits`, of each image in a batch of one."""
        return self._logits_alone(as_pixels(self._in_unit(images))).numpy()

    def expect_judgeable(self, images: np.ndarray | stored.Images) -> None:
        """Raises InputError unless the classifier's verdicts mean something.

        Args:
          images: uint8 or float32 in [0, 1], [n, H, W, C], of which some are
            tried; the first ones, so that all shards say the same of them.
        """
        judging.expect_judgeable(
            self.logits, self.logits_alone, images, self.batch_size
        )

    def _in_unit(self, images):
        """Returns uint8 images, or float32 ones in [0, 1]."""
        images = np.asarray(images)
        expect(
            images.shape[1:] == self._shape,
            f"images of {self._shape}, the size that the classifier takes",
            shape=images.shape,
        )
        if images.dtype != np.uint8:
            stepped.expect_images(images, (0.0, 1.0))
            images = images.astype(np.float32)
        return images

    def _num_classes(self):
        """Returns how many scores there are; None where no graph says it."""
        graph = self._logits_alone.get_concrete_function()
        return graph.structured_outputs.shape[-1]

    def _expect_classes(self, labels):
        """Raises InputError unless labels [n] are classes of the logits."""
        num_classes = self._num_classes() or np.iinfo(np.int32).max
        smallest, largest = labels.min(initial=0), labels.max(initial=0)
        expect(
            0 <= smallest and largest < num_classes,
            f"labels from 0 to {num_classes - 1}",
            smallest=int(smallest),
            largest=int(largest),
        )

    def _in_bucket(self, function, rows):
        """Returns {name: [b, ...]} of a function of rows, {name: [b, ...]}.

        XLA compiles it for each number of rows. Their last one is repeated up
        to a power of two, so that broken images that leave do not have it
        compiled again and again.
        """
        count = len(next(iter(rows.values())))
        size = count
        if self._by_xla and self.is_frozen and count:
            size = min(2 ** (count - 1).bit_length(), self.batch_size)
        if size <= count:
            return function(rows)
        filled = np.minimum(np.arange(size), count - 1)
        more = function({k: tf.gather(v, filled) for k, v in rows.items()})
        return {name: row[:count] for name, row in more.items()}

    def run(
        self,
        attack: Any,
        images: np.ndarray,
        labels: np.ndarray,
        indices: np.ndarray,
        seed: int | np.integer,
        advance: Callable[[int], None] | None = None,
    ) -> outcome.Outcome:
        """Returns the Outcome of an attack on images.

        Args:
          attack: a stepped attack, see `stepped`, or a LinfAttack, of which
            every point is judged.
          images: uint8 or float32 in [0, 1], [n, H, W, C], at most
            `group_size`.
          labels: integers [n], classes.
          indices: integers [n], positions in the data set: with `seed` they
            give each image its random numbers.
          seed: integer of 64 bits.
          advance: called with the number of forward passes that are done, or
            that broken images need no more: `stepped.passes` for each image.

        Raises:
          InputError: images of another range or size, no stepped attack or
            one of other bounds, labels that are no classes, or not a label
            and an index for each image.
        """
        if isinstance(attack, linf.LinfAttack):
            attack = linf.Steps(attack)
        expect(
            all(hasattr(attack, name) for name in ("start", "step"))
            and not isinstance(attack, type),
            "a stepped attack, with start and step (attacks.columns has them "
            "by name)",
            attack=attack,
        )
        expect(
            tuple(attack.bounds) == (0, 1),
            "an attack with bounds=(0, 1), the range of the pixels here "
            "(robust_accuracy takes images of any)",
            bounds=attack.bounds,
        )
        images = self._in_unit(images)
        labels = _whole_numbers("labels", labels)
        indices = _whole_numbers("indices", indices)
        expect(
            len(images) == len(labels) == len(indices),
            "a label and an index for each image",
            images=len(images),
            labels=len(labels),
            indices=len(indices),
        )
        self._expect_classes(labels)
        expect(
            isinstance(seed, int | np.integer)
            and not isinstance(seed, bool)
            and -(2**63) <= seed < 2**63,
            "seed, a whole number of 64 bits",
            seed=seed,
        )
        labels = labels.astype(np.int32)
        if not len(images):
            return outcome.of_no_image(images)
        begin = time.perf_counter()
        rows = self._ended_rows(attack, images, labels, indices, seed, advance)
        order = np.concatenate([row[_POSITION] for row in rows])
        joined = {
            name: np.concatenate([row[name] for row in rows])[np.argsort(order)]
            for name in ("adversarial", "margin", "broke_at")
        }
        share = (time.perf_counter() - begin) / max(1, len(images))
        return self._checked(attack, images, labels, joined, share)

    def _ended_rows(self, attack, images, labels, indices, seed, advance):
        """Returns the rows of all images, each once it has ended."""
        start, go_on = self._functions(attack, images.dtype)
        advance = advance or (lambda count: None)
        each = stepped.passes_a_step(attack)
        packs = []
        for first in range(0, len(images), self.batch_size):
            part = slice(first, first + self.batch_size)
            state = self._in_bucket(
                lambda rows: start(*rows.values(), seed),
                {
                    "images": images[part],
                    "labels": labels[part],
                    "indices": indices[part],
                },
            )
            positions = np.arange(len(images))[part]
            packs.append({**state, _POSITION: tf.constant(positions)})
        ended, done = [], 0
        while packs and done < attack.num_steps:
            last = attack.num_steps
            if self._compacts:
                last = min(last, done + _look_after(done, attack))
            for number, pack in enumerate(packs):
                packs[number] = self._stepped_pack(go_on, pack, done, last)
                advance(len(pack["margin"]) * (last - done) * each)
            done = last
            if done < attack.num_steps:
                packs, gone = _without_broken(packs, self.batch_size)
                ended += gone
                count = sum(len(row["margin"]) for row in gone)
                advance(count * (attack.num_steps - done) * each)
        return ended + [_as_numpy(pack) for pack in packs]

    def _stepped_pack(self, go_on, pack, first, last):
        state = {k: v for k, v in pack.items() if k != _POSITION}
        after = self._in_bucket(
            lambda rows: go_on(rows, tf.constant(first), tf.constant(last)),
            state,
        )
        return {**after, _POSITION: pack[_POSITION]}

    def _functions(self, attack, dtype):
        """Returns the compiled start of an attack, and steps from a to b."""
        key = attack, dtype
        if key not in self._starts:
            self._starts[key] = self._compiled_start(attack, dtype)
        start, walk = self._starts[key], _with_first_target(attack)
        if walk not in self._steps:
            self._steps[walk] = self._compiled_steps(walk, start)
        return start, self._steps[walk]

    def _compiled_start(self, attack, dtype):
        logits_fn = self._attacked_fn

        @tf.function(
            input_signature=(
                tf.TensorSpec([None, *self._shape], dtype),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([], tf.int64),
            ),
            jit_compile=self._by_xla,
            autograph=self._autograph,
        )
        def start(images, labels, indices, seed):
            seeds = randomness.example_seeds(seed, 0, indices)
            state = attack.start(logits_fn, as_pixels(images), labels, seeds)
            return {k: tf.stop_gradient(v) for k, v in state.items()}

        return start

    def _compiled_steps(self, attack, start):
        rows = start.get_concrete_function().structured_outputs
        state_spec = {
            name: tf.TensorSpec([None, *row.shape[1:]], row.dtype)
            for name, row in rows.items()
        }
        step_spec = tf.TensorSpec([], tf.int32)
        return tf.function(
            lambda state, first, last: stepped.advanced(
                attack, self._attacked_fn, state, first, last
            ),
            input_signature=(state_spec, step_spec, step_spec),
            jit_compile=self._by_xla,
            autograph=self._autograph,
        )

    def _checked(self, attack, images, labels, rows, share):
        """Returns the Outcome with candidates that do not hold refuted."""
        pixels = judging.in_unit(images)
        adversarial, broke_at = rows["adversarial"], rows["broke_at"].copy()
        margin = rows["margin"].copy()
        distance = np.abs(adversarial - pixels).max((1, 2, 3), initial=0.0)
        broken = broke_at != stepped.NEVER
        holds = np.ones(len(images), bool)
        prediction = np.full(len(images), -1)
        if self.is_frozen:
            valid = _is_valid(attack, adversarial, pixels)
            prediction[:] = labels
            rows = np.flatnonzero(broken)
            alone = self._logits_alone(adversarial[rows]).numpy()
            margin[rows] = losses.verdict_margin(labels[rows], alone)
            holds[rows] = valid[rows] & (margin[rows] <= 0)
            predicted = losses.predicted(labels[rows], alone)
            prediction[rows] = np.where(holds[rows], predicted, labels[rows])
        broke_at[broken & ~holds] = stepped.NEVER
        return outcome.Outcome(
            adversarial,
            margin,
            prediction,
            broke_at,
            distance,
            broken & ~holds,
            np.full(len(images), share),
        )


def _whole_numbers(name, given):
    """Returns int64 [n] of what is an array, a list or a range of them."""
    try:
        numbers = np.asarray(given)
    except ValueError:  # rows of several lengths
        numbers = np.asarray(given, object)
    if not numbers.size:
        numbers = numbers.astype(np.int64)
    is_whole = numbers.ndim == 1 and np.issubdtype(numbers.dtype, np.integer)
    expect(
        is_whole and numbers.max(initial=0) < 2**63,
        f"{name} [n], whole numbers",
        **{name: numbers.shape},
        dtype=numbers.dtype.name,
    )
    return numbers.astype(np.int64)


def _with_first_target(attack):
    """Returns the attack whose steps are the same and may be compiled already.

    The rank of a target is only read at the start, which puts the class into
    the state: nine targets are nine starts, and steps of one kind.
    """
    if getattr(attack, "target", None):
        return dataclasses.replace(attack, target=1)
    return attack


def _look_after(done, attack):
    return max(1, min(done, attack.num_steps // _LOOKS))


def _without_broken(packs, batch_size):
    """Returns packs of the images that stand, and the rows of the others."""
    standing, ended = [], []
    for pack in packs:
        stands = (pack["broke_at"] == stepped.NEVER).numpy()
        if stands.all():
            standing.append(pack)
            continue
        broken = np.flatnonzero(~stands)
        ended.append(
            _as_numpy({k: tf.gather(v, broken) for k, v in pack.items()})
        )
        rest = np.flatnonzero(stands)
        if len(rest):
            standing.append({k: tf.gather(v, rest) for k, v in pack.items()})
    sizes = [len(pack["margin"]) for pack in standing]
    fewest = -(-sum(sizes) // batch_size)
    if fewest == len(standing):
        return standing, ended
    joined = {
        name: tf.concat([pack[name] for pack in standing], 0)
        for name in standing[0]
    }
    packs = [
        {k: v[s : s + batch_size] for k, v in joined.items()}
        for s in range(0, sum(sizes), batch_size)
    ]
    return packs, ended


def _as_numpy(pack):
    names = ("adversarial", "margin", "broke_at", _POSITION)
    return {name: pack[name].numpy() for name in names}


def as_pixels(images: tf.Tensor) -> tf.Tensor:
    """Returns images float32 in [0, 1], to which uint8 ones are scaled."""
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) / 255.0
    return images


def _is_valid(attack, adversarial, pixels):
    """Returns whether each candidate is finite and inside ball and box."""
    size = np.prod(adversarial.shape[1:])
    flat = adversarial.reshape(len(adversarial), size)
    distance = flat - pixels.reshape(flat.shape)
    order = {"linf": np.inf, "l2": 2}[getattr(attack, "norm", "linf")]
    in_ball = (
        np.linalg.norm(distance, order, axis=1)
        <= attack.epsilon + _BALL_TOLERANCE
    )
    low, high = attack.bounds
    in_box = (flat >= low).all(1) & (flat <= high).all(1)  # false for NaN too
    return in_ball & in_box
