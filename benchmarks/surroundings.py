"""The hardware, the versions and the commit that a figure holds for."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import sys

# What decides how fast a processor multiplies, where it has it.
_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
)
_DISTRIBUTIONS = ("tensorflow", "keras", "numpy", "grpcio")


def surroundings() -> dict:
    """Returns the hardware, the versions, the commit and the time, for JSON.

    TensorFlow is not imported; GPUs are listed where it was.
    """
    from atat_tf.runs import folder as run_folder

    processor = _processor()
    return {
        "cpu": processor.get("model name", platform.machine()),
        "cores": (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count()
        ),
        "features": [
            name
            for name in _FEATURES
            if name in processor.get("flags", "").split()
        ],
        "memory_gib": round(_memory() / 2**30, 1),
        "gpus": _gpus(),
        "load_before": round(os.getloadavg()[0], 1),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "python": platform.python_version(),
        "versions": _versions(),
        "commit": run_folder.commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
    }


def sentences(about: dict) -> str:
    """Returns two lines about the hardware and the software."""
    versions = ", ".join(
        f"{name} {version}" for name, version in about["versions"].items()
    )
    return (
        f"{about['cpu']} ({', '.join(about['features']) or 'plain'}), "
        f"{about['cores']} cores, {about['memory_gib']} GiB, GPUs: "
        f"{', '.join(about['gpus']) or 'none'}, load before "
        f"{about['load_before']}\n"
        f"Python {about['python']}, {versions}, oneDNN {about['onednn']}, "
        f"commit {about['commit']}, {about['date']}"
    )


def print_sentences(about: dict) -> None:
    """Prints them."""
    from atat_tf.runs import terminal

    terminal.console().print(sentences(about))


def _processor():
    """Returns {field: value} of the first processor, {} where unknown."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _memory():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gpus():
    tf = sys.modules.get("tensorflow")
    if tf is None:
        return []
    details = tf.config.experimental.get_device_details
    found = tf.config.list_physical_devices("GPU")
    return [details(gpu).get("device_name", "GPU") for gpu in found]


def _versions():
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
