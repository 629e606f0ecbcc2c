"""Whether functions are compiled by XLA."""

import os

import tensorflow as tf

from atat_tf.errors import expect

VARIABLE = "ATAT_XLA"


def by_xla() -> bool:
    """Returns whether XLA compiles training steps, attacks and attention.

    On GPUs alone: on CPUs it runs convolutions inside a loop many times slower
    than the plain graph does. ATAT_XLA=1 and ATAT_XLA=0 in the environment
    decide otherwise.

    Raises:
      InputError: another value there.
    """
    asked = os.environ.get(VARIABLE)
    expect(asked in (None, "0", "1"), f"{VARIABLE} as 0 or 1", value=asked)
    if asked is None:
        return bool(tf.config.list_physical_devices("GPU"))
    return asked == "1"
