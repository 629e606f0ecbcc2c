"""What `fresh` has done in a new process: first calls and peaks.

Every function imports TensorFlow itself, so that its time counts, and returns
a dictionary of numbers.
"""

import math
import pathlib
import re
import time

_STATUS = pathlib.Path("/proc/self/status")


def first_step(depth: int, width: int, batch_size: int) -> dict:
    """Returns what the first ATAT step of a process costs.

    Returns:
      "import_seconds"; "build_seconds" of teacher, student and trainer;
      "step_seconds" of the first step, tracing included; "peak_gib", the most
      memory that the process had.
    """
    begin = time.perf_counter()
    from atat_tf.training import build as training_build
    from benchmarks import timings

    imported = time.perf_counter()
    config = timings.resolved_config("atat", depth, width, batch_size)
    split = timings.random_split(batch_size)
    step = timings.training_step(config, split, training_build.build_strategy())
    built = time.perf_counter()
    step()
    return {
        "import_seconds": imported - begin,
        "build_seconds": built - imported,
        "step_seconds": time.perf_counter() - built,
        "peak_gib": _kilobytes("VmHWM") / 2**20,
    }


def written_weights(folder: str, depth: int, width: int) -> dict:
    """Writes a classifier's random weights, as a run folder has them."""
    from atat_tf.runs import folder as run_folder
    from benchmarks import timings

    config = timings.resolved_config("at", depth, width, 1)
    classifier = timings.classifier(config)
    run_folder.save_weights(pathlib.Path(folder), "best", classifier)
    return {}


def first_evaluation(
    folder: str, depth: int, width: int, batch_size: int
) -> dict:
    """Returns what the first clean batch of an evaluation costs.

    Args:
      folder: with the weights, see `written_weights`.
      depth, width: of the Wide ResNet.
      batch_size: images.

    Returns:
      As `first_step`; "step_seconds" are those of reading and of the batch.
    """
    begin = time.perf_counter()
    from atat_tf.evaluation import attacker as attacker_lib
    from atat_tf.runs import folder as run_folder
    from benchmarks import timings

    imported = time.perf_counter()
    config = timings.resolved_config("at", depth, width, batch_size)
    split = timings.random_split(batch_size)
    classifier = timings.classifier(config)
    built = time.perf_counter()
    run_folder.load_weights(pathlib.Path(folder), "best", classifier)
    runner = attacker_lib.Attacker(classifier, batch_size)
    runner.logits(split.images).argmax(-1)
    return {
        "import_seconds": imported - begin,
        "build_seconds": built - imported,
        "step_seconds": time.perf_counter() - built,
        "peak_gib": _kilobytes("VmHWM") / 2**20,
    }


def training_memory(depth: int, width: int, batch_size: int) -> dict:
    """Returns the peak of ATAT steps, and the activations' own size.

    The update keeps the activations of clean and adversarial images; the
    attack's, at another time, are half of that.

    Returns:
      "peak_bytes" above what the process had before the first of three steps,
      and "activation_bytes".
    """
    from atat_tf.training import build as training_build
    from benchmarks import timings

    config = timings.resolved_config("atat", depth, width, batch_size)
    split = timings.random_split(batch_size)
    step = timings.training_step(config, split, training_build.build_strategy())
    return {
        "peak_bytes": _peak(step),
        "activation_bytes": 2 * batch_size * activation_bytes(config),
    }


def attack_memory(depth: int, width: int, batch_size: int) -> dict:
    """Returns the same of the training attack alone, on `batch_size` images."""
    from benchmarks import timings

    config = timings.resolved_config("atat", depth, width, batch_size)
    attack = timings.attack_step(config, timings.random_split(batch_size))
    return {
        "peak_bytes": _peak(attack),
        "activation_bytes": batch_size * activation_bytes(config),
    }


def activation_bytes(config) -> int:
    """Returns the bytes that an image's activations have, all layers' outputs.

    Every convolution, batch norm, activation and addition gives one, float32.
    """
    from benchmarks import timings

    shapes = (layer.output.shape for layer in timings.classifier(config).layers)
    return sum(4 * math.prod(shape[1:]) for shape in shapes)


def _peak(step):
    """Returns by how many bytes memory was highest in three calls."""
    before = _kilobytes("VmRSS")
    # Lets the high-water mark begin again at what there is now.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    for _ in range(3):
        step()
    return 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(field):
    return int(re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())[1])
