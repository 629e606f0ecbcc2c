"""How the cost of a training step grows, as a fitted model and a projection.

Measurements of `benchmarks.cost.step_cost` enter; coefficients, what they leave
unexplained, and hours and memory of larger runs leave.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
from scipy import optimize

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_BYTES = 4  # of a float32


@dataclasses.dataclass(frozen=True)
class Settings:
    """One thing to measure: ATAT on a Wide ResNet.

    Attributes:
      depth, width: of the Wide ResNet.
      image_size: height and width in pixels.
      num_steps: of PGD.
      batch_size: of the step, over all replicas.
      replicas: logical CPUs, or GPUs.
      repeats: timed steps after the first.
      micro_batch_size, attack_batch_size, remat: as in configs/base.py.
    """

    depth: int = 10
    width: int = 1
    image_size: int = 32
    num_steps: int = 7
    batch_size: int = 32
    replicas: int = 1
    repeats: int = 5
    micro_batch_size: int = 0
    attack_batch_size: int = 0
    remat: bool = False


def measured(settings):
    """Returns what `step_cost` measures in a process of its own.

    Its peak memory is nobody else's.

    Raises:
      RuntimeError: the process failed.
    """
    text = json.dumps(dataclasses.asdict(settings))
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.cost.step_cost", text],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        raise RuntimeError(f"{text} failed:\n{ran.stderr[-2000:]}")
    return json.loads(ran.stdout.splitlines()[-1])


def passes(num_steps):
    """Returns an ATAT step's cost for an image, in forward passes.

    2 for each attack step (forward, and back to the images), 3 for each of the
    two images of the update, 1 for the teacher.
    """
    return 2 * num_steps + 7


@dataclasses.dataclass(frozen=True)
class Fit:
    """A sum of terms with coefficients >= 0.

    Attributes:
      names: of the terms.
      coefficients: of each.
      errors: relative, of each measurement: fitted / measured − 1.
    """

    names: tuple
    coefficients: tuple
    errors: tuple

    def __call__(self, terms):
        return float(np.dot(self.coefficients, terms))


def fit(names, rows, values):
    """Returns the Fit of least relative squares, coefficients >= 0.

    Args:
      names: of the terms.
      rows: [n, terms].
      values: [n], measured, > 0.
    """
    rows, values = np.asarray(rows, float), np.asarray(values, float)
    weighted = rows / values[:, None]
    # Terms differ by many powers of ten.
    scale = np.maximum(np.abs(weighted).max(axis=0), 1e-300)
    solution, _ = optimize.nnls(weighted / scale, np.ones(len(values)))
    coefficients = solution / scale
    errors = rows @ coefficients / values - 1
    return Fit(tuple(names), tuple(coefficients), tuple(errors))


TIME = ("a step", "GFLOP", "million activations", "another replica")
MEMORY = ("the process", "parameters", "activations of the batch")


def time_terms(cost):
    """Returns the terms of a step's seconds.

    Overhead of a step; arithmetic, and traffic of activations, both by the
    passes; overhead of each replica beyond the first.
    """
    times = passes(cost["num_steps"]) * cost["batch_size"]
    return (
        1.0,
        times * cost["flops"] / 1e9,
        times * cost["activations"] / 1e6,
        cost["replicas"] - 1.0,
    )


def memory_terms(cost):
    """Returns the terms of a process's peak memory, in bytes."""
    return (
        1.0,
        _BYTES * cost["parameters"],
        _BYTES * cost["activations"] * cost["batch_size"],
    )


def fits(costs):
    """Returns the Fit of seconds and the Fit of peak bytes.

    Args:
      costs: list of what `measured` returns.
    """
    seconds = fit(TIME, [time_terms(c) for c in costs], _all(costs, "seconds"))
    peaks = np.array(_all(costs, "peak_gib")) * 2**30
    return seconds, fit(MEMORY, [memory_terms(c) for c in costs], peaks)


def _all(costs, name):
    return [cost[name] for cost in costs]


@dataclasses.dataclass(frozen=True)
class Assumed:
    """What a projection assumes of GPUs; none of it is measured here.

    Attributes:
      tflops: sustained arithmetic of one GPU in convolutions, in 10¹² a
        second.
      memory_gib: of one GPU.
      near_gbytes, far_gbytes: 10⁹ bytes a second that a GPU sends to others,
        within a machine and between machines.
      a_machine: GPUs in one machine.
    """

    tflops: float = 40.0
    memory_gib: float = 80.0
    near_gbytes: float = 150.0
    far_gbytes: float = 12.5
    a_machine: int = 8


def projected(network, gpus, assumed, memory):
    """Returns hours, and images that fit, of a run on so many GPUs.

    Time is arithmetic at the assumed rate, plus a ring all-reduce of the
    gradients each step, 2 (N − 1) / N of them sent by each GPU, hidden behind
    nothing. Memory is the fit's, for the share of a batch on one GPU.

    Args:
      network: {"parameters", "flops", "activations", "num_steps",
        "batch_size" on each GPU, "images" in an epoch, "epochs"}.
      gpus: N.
      assumed: Assumed.
      memory: Fit of memory on the processor.
    """
    images = network["batch_size"]
    work = passes(network["num_steps"]) * network["flops"] * images
    arithmetic = work / (1e12 * assumed.tflops)
    near = gpus <= assumed.a_machine
    rate = 1e9 * (assumed.near_gbytes if near else assumed.far_gbytes)
    sent = 2 * (gpus - 1) / gpus * _BYTES * network["parameters"] / rate
    steps = network["images"] * network["epochs"] / (images * gpus)
    _, weights, each = memory.coefficients
    held = weights * _BYTES * network["parameters"]
    an_image = each * _BYTES * network["activations"]
    return {
        "hours": steps * (arithmetic + sent) / 3600,
        "share_sent": sent / (arithmetic + sent),
        "images_a_second": images * gpus / (arithmetic + sent),
        "images_that_fit": int((assumed.memory_gib * 2**30 - held) / an_image),
    }
