"""Shows where the time of an ATAT step goes, by TensorFlow's own profiler.

  python -m benchmarks.cost.profile_step
  python -m benchmarks.cost.profile_step --depth=16 --width=4 --noonednn

Random images. Seconds of an operation run from its start to its end on the
thread that it was started on, its helpers' work included; those of operations
that run at the same time are added, so the shares are of their sum. TensorBoard
with its profile plugin reads the whole trace in --folder.
"""

import pathlib
import sys
import tempfile
import time

from absl import app, flags

from benchmarks import command, surroundings

_DEPTH = flags.DEFINE_integer("depth", 16, "of the Wide ResNet, 6n + 4")
_WIDTH = flags.DEFINE_integer("width", 1, "of the Wide ResNet")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "b", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 3, "that are traced", lower_bound=1)
_METHOD = flags.DEFINE_enum("method", "atat", ["at", "atat"], "which step")
_ONEDNN = flags.DEFINE_bool("onednn", True, "TensorFlow's oneDNN kernels")
_ROWS = flags.DEFINE_integer("rows", 15, "types that are shown")
_FOLDER = flags.DEFINE_string("folder", None, "where the trace stays")


def profile(method, sizes, steps, folder):
    """Returns {type: seconds a step}, and the seconds of a step by the clock.

    Args:
      method: "atat" or "at".
      sizes: depth, width, batch size.
      steps: that are traced, after two that are not.
      folder: of the trace.
    """
    import tensorflow as tf

    from benchmarks.cost import timings, traces

    step = timings.training_step(
        timings.resolved_config(method, *sizes),
        timings.random_split(sizes[-1]),
    )
    step()
    step()
    tf.profiler.experimental.start(str(folder))
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = (time.perf_counter() - begin) / steps
    tf.profiler.experimental.stop()
    found = traces.seconds_by_type(folder)
    return {kind: value / steps for kind, value in found.items()}, seconds


def print_shares(title, found, rows):
    """Prints the types that take most, and their shares of the sum."""
    from atat_tf.runs import terminal

    total = sum(found.values())
    ordered = sorted(found.items(), key=lambda item: -item[1])
    rest = sum(value for _, value in ordered[rows:])
    shown = [*ordered[:rows], (f"{len(ordered[rows:])} others", rest)]
    terminal.table(
        title,
        ("operation", "ms", "%"),
        [
            (kind, f"{1e3 * value:,.1f}", f"{100 * value / total:.1f}")
            for kind, value in shown
        ],
    )


def main(argv):
    command.begin(argv, _ONEDNN.value)
    from atat_tf.errors import InputError

    sizes = _DEPTH.value, _WIDTH.value, _BATCH_SIZE.value
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(_FOLDER.value or temporary)
        try:
            found, seconds = profile(_METHOD.value, sizes, _STEPS.value, folder)
        except InputError as error:
            sys.exit(f"error: {error}")
    title = (
        f"{_METHOD.value.upper()} step, WRN-{sizes[0]}-{sizes[1]}, "
        f"b = {sizes[2]}: {1e3 * seconds:,.0f} ms, traced"
    )
    print_shares(title, found, _ROWS.value)
    surroundings.print_sentences(surroundings.surroundings())


if __name__ == "__main__":
    app.run(main)
