"""A batch a few images at a time, in one compiled loop.

What fits into memory bounds the size of a micro-batch and not of the batch. A
function of rows enters; what it says of all rows, or the sum of its gradients,
leaves.
"""

import keras
import tensorflow as tf

from atat_tf.defenses.objective import Objective
from atat_tf.errors import expect


def in_pieces(step, rows, size, row_shape, carried=()):
    """Returns what a step carries along, and its outputs for all rows.

    Args:
      step: (pieces of the rows, carried) -> carried, outputs [m, *row_shape].
        Inside a loop, it must not talk to other replicas.
      rows: tuple of tensors [b, ...].
      size: m, rows at a time; the last piece may be smaller. 0: all at once,
        without a loop.
      row_shape: shape of one row of the outputs; they are of Keras' float.
      carried: structure of tensors that the first piece starts from.

    Returns:
      carried after the last piece, and outputs [b, *row_shape].
    """
    count = rows[0].shape[0]
    if not size or (count is not None and count <= size):
        return step(rows, carried)
    pieces, piece, height = _cut(rows, size, count)
    gathered = tf.TensorArray(
        keras.config.floatx(),
        size=pieces,
        infer_shape=False,
        element_shape=(height, *row_shape),
    )

    def body(index, carried, gathered):
        carried, outputs = step(piece(index), carried)
        return index + 1, carried, gathered.write(index, outputs)

    _, carried, gathered = tf.while_loop(
        lambda index, *_: index < pieces,
        body,
        (tf.constant(0), carried, gathered),
        # One at a time: that is what saves the memory.
        parallel_iterations=1,
    )
    return carried, tf.ensure_shape(gathered.concat(), (count, *row_shape))


def gradients(objective_of, penalty, model, rows, size, terms):
    """Returns the gradients of a sum over all rows, and the Objective.

    Without a loop where `size` is 0. In the loop batch-norm statistics are
    those of each micro-batch, and the stored ones move once for each; they
    are carried along and assigned at the end, since inside they would be
    averaged over replicas.

    Args:
      objective_of: rows -> Objective, and the share of the loss that is
        theirs, a scalar.
      penalty: function to the rest of the loss, a scalar or 0.
      model: keras.Model whose trainable variables are differentiated by.
      rows: tuple of tensors [b, ...].
      size: rows at a time, 0: all.
      terms: names of the Objective's terms.
    """
    variables = model.trainable_variables
    if not size:
        with tf.GradientTape() as tape:
            objective, share = objective_of(*rows)
            total = share + penalty()
        return tape.gradient(total, variables), objective
    states = model.non_trainable_variables
    packing = _Packing(terms, model.output_shape[-1])

    def step(rows, carried):
        sums, values = carried
        scope = keras.StatelessScope(list(zip(states, values, strict=True)))
        with scope, tf.GradientTape() as tape:
            objective, share = objective_of(*rows)
        sums = _added(sums, tape.gradient(share, variables))
        values = [scope.get_current_value(state) for state in states]
        return (sums, values), packing.pack(objective)

    with tf.GradientTape() as tape:
        rest = tf.convert_to_tensor(penalty(), keras.config.floatx())
    start = [tf.zeros_like(variable) for variable in variables]
    start = _added(start, tape.gradient(rest, variables))
    values = [tf.convert_to_tensor(state) for state in states]
    (sums, values), packed = in_pieces(
        step, rows, size, (packing.width,), (start, values)
    )
    for state, value in zip(states, values, strict=True):
        state.assign(value)
    return sums, packing.unpack(packed)


def expect_own_statistics(model):
    """Raises InputError where batch norm talks to other replicas.

    In a loop over micro-batches it cannot.
    """
    for layer in model.layers:
        expect(
            not getattr(layer, "synchronized", False),
            "sync_batch_norm=False with micro-batches, whose statistics are "
            "their own",
            layer=layer.name,
        )


def _added(sums, gradients):
    """Returns sums + gradients, where a gradient may be None."""
    return [
        total
        if gradient is None
        else tf.ensure_shape(total + gradient, total.shape)
        for total, gradient in zip(sums, gradients, strict=True)
    ]


def _cut(rows, size, count):
    """Returns the number of pieces, a function to one, and its static size."""
    if count is not None and count % size == 0:
        # Static shapes, which XLA needs.
        number = count // size
        folded = [
            tf.reshape(row, (number, size, *row.shape[1:])) for row in rows
        ]
        return number, lambda i: tuple(row[i] for row in folded), size
    number = (tf.shape(rows[0])[0] + size - 1) // size
    return (
        number,
        lambda i: tuple(row[i * size : (i + 1) * size] for row in rows),
        None,
    )


class _Packing:
    """An Objective as the columns of one matrix, which a loop can gather.

    Args:
      terms: names of its terms.
      num_classes: k, the width of each of the logits.

    Attributes:
      width: number of columns.
    """

    def __init__(self, terms, num_classes):
        self._terms = tuple(terms)
        self._num_classes = num_classes
        self._there = None
        self.width = 1 + len(self._terms) + 2 * num_classes

    def pack(self, objective):
        """Returns float [b, width]; logits that are None leave zeros."""
        both = objective.clean_logits, objective.adversarial_logits
        # Seen while the loop is traced, before anything is unpacked.
        self._there = [logits is not None for logits in both]
        values = [objective.loss, *(objective.terms[t] for t in self._terms)]
        columns = [value[:, None] for value in values]
        empty = tf.zeros((tf.shape(columns[0])[0], self._num_classes))
        columns += [empty if logits is None else logits for logits in both]
        columns = [tf.cast(c, keras.config.floatx()) for c in columns]
        return tf.ensure_shape(tf.concat(columns, 1), (None, self.width))

    def unpack(self, packed):
        """Returns the Objective of all rows."""
        k = self._num_classes
        *values, clean, adversarial = tf.split(
            packed, [*[1] * (self.width - 2 * k), k, k], axis=1
        )
        loss, *terms = (tf.squeeze(value, 1) for value in values)
        clean, adversarial = (
            logits if there else None
            for logits, there in zip(
                (clean, adversarial), self._there, strict=True
            )
        )
        terms = dict(zip(self._terms, terms, strict=True))
        return Objective(loss, terms, clean, adversarial)
