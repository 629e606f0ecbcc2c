"""How every benchmark begins and how it ends."""

import datetime
import os
import pathlib
import platform
from collections.abc import Collection, Iterable

from absl import flags

from atat_tf.errors import expect, expect_known
from atat_tf.runs import command_line
from benchmarks import ratios

ROOT = pathlib.Path(__file__).resolve().parents[1]
_JSON = flags.DEFINE_string("json", None, "file for all of the figures")


def begin(onednn: bool = True) -> dict:
    """Loads TensorFlow quietly; called by a main, so that --help needs none.

    Args:
      onednn: whether TensorFlow has oneDNN's kernels, where the environment
        does not say it (TF_ENABLE_ONEDNN_OPTS).

    Returns:
      The surroundings, before anything is measured.

    Raises:
      InputError: --json cannot be written.
    """
    if _JSON.value:
        file = pathlib.Path(_JSON.value)
        expect(
            file.parent.is_dir()
            and os.access(file.parent, os.W_OK)
            and not file.is_dir(),
            "a file for --json in an existing folder",
            json=str(file),
        )
    with command_line.quiet_start(onednn):
        import tensorflow  # noqa: F401
    return surroundings()


def expect_names(
    flag: str, names: Iterable[str], known: Collection[str]
) -> None:
    """Raises InputError where a list flag has no name, or an unknown one."""
    names = [*names]
    expect(names, f"one at least of {', '.join(known)} for {flag}", names=names)
    for name in names:
        expect_known(flag, name, known)


def finish(title: str, results: dict) -> None:
    """Prints the comparisons and what they hold for; writes --json.

    Args:
      title: of the table.
      results: ready for JSON, with "comparisons", see `ratios`, and
        "surroundings".
    """
    ratios.print_table(title, results["comparisons"])
    for name, value in results["surroundings"].items():
        print(f"{name}: {value}")
    write(results)


def write(results: dict) -> None:
    """Writes --json, if there is such a flag, whole or not at all."""
    from atat_tf.runs import folder as run_folder

    if _JSON.value:
        run_folder.write_json(pathlib.Path(_JSON.value), results)


def surroundings() -> dict:
    """Returns hardware, versions, commit and time, ready for JSON."""
    import keras
    import numpy as np
    import tensorflow as tf

    from atat_tf.reports.tables import reproduction
    from atat_tf.runs import folder as run_folder

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # What decides how fast a processor multiplies, where it has it.
    extensions = np.show_config("dicts")["SIMD Extensions"].get("found", [])
    return {
        "hardware": reproduction.hardware(),
        "extensions": ", ".join(extensions),
        "memory_gib": round(memory / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 1),
        "onednn": os.environ["TF_ENABLE_ONEDNN_OPTS"],
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "commit": run_folder.commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
    }
