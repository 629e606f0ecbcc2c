"""What a plan will cost, before it is started.

Floating-point operations are counted from the networks and configs; seconds
come from a rate measured here and now, on the same network.
"""

import dataclasses
import time

import numpy as np
import tensorflow as tf

from atat_tf.attacks import stepped
from atat_tf.models import graphs
from atat_tf.reports.tables import catalogue
from atat_tf.runs import build, terminal
from atat_tf.training import cost as training_cost

# Tracing and building besides the work itself, of a training and of each
# attack: rough figures, which matter at the tiny scale alone.
_TRACING_SECONDS = 20.0
_ATTACK_TRACING_SECONDS = 1.5
_PROBE_FLOPS = 5e9


@dataclasses.dataclass(frozen=True)
class Cost:
    """What is left to do of a job.

    Attributes:
      job: the Job.
      doing: in a word or two.
      flops: floating-point operations of training and, at most, evaluation.
      seconds: wall time at the measured rate.
    """

    job: object
    doing: str
    flops: float
    seconds: float


def costs(plan):
    """Returns the Cost of each job of a plan, in order.

    Nothing is measured where nothing is left to do.
    """
    networks = {}
    return [_cost(plan, job, networks) for job in plan.jobs]


def print_plan(plan, all_costs):
    """Prints the jobs, what is left of each, and the sum."""
    rows = [
        [
            f"{cost.job.row.label}, seed {cost.job.seed}",
            cost.doing,
            f"{cost.job.config.num_epochs}",
            f"{cost.flops / 1e12:,.3g}",
            terminal.duration(cost.seconds) if cost.flops else "",
        ]
        for cost in all_costs
    ]
    data, wanted = plan.dataset, plan.wanted()
    terminal.table(
        f"Plan: {plan.table.title}; scale {plan.scale.name}",
        ["row", "left", "epochs", "TFLOP", "time"],
        rows,
    )
    screen = terminal.console()
    screen.print(
        f"{data.name} ({data.provenance}): {len(data.train):,} training "
        "images; test images: "
        + ", ".join(f"{name} {count:,}" for name, count in wanted.items())
    )
    seconds = sum(cost.seconds for cost in all_costs)
    screen.print(
        f"Into {plan.folder}, about {terminal.duration(seconds)} in all at the "
        "rate measured now, at most: attacks stop at images that break."
    )


def _cost(plan, job, networks):
    if not plan.has_work(job):
        return Cost(job, "nothing", 0.0, 0.0)
    left = 0 if job.is_trained else job.config.num_epochs - job.epochs_done
    key = repr(job.config.backbone)
    if key not in networks:
        networks[key] = _network(job.config, plan.dataset.spec)
    forward, rate = networks[key]
    images = left * len(plan.dataset.train)
    flops = images * training_cost.passes_per_image(job.config) * forward
    seconds = 0.0 if job.is_trained else _TRACING_SECONDS
    words = [] if job.is_trained else [f"train {left} epochs"]
    missing = plan.missing(job)
    if plan.lacks_shift(job):
        missing = {**missing, "attention shift": {catalogue.SHIFT_COLUMN: None}}
    for mode, columns in missing.items():
        passes, attacks = _evaluation_cost(plan, job.config, columns)
        flops += passes * forward
        seconds += attacks * _ATTACK_TRACING_SECONDS
        words.append(f"evaluate {mode}")
    return Cost(job, ", ".join(words), flops, seconds + flops / rate)


def _evaluation_cost(plan, config, wanted):
    """Returns forward passes over columns, at most, and how many attacks."""
    classes = plan.dataset.spec.num_classes
    built = build.build_columns(config, list(wanted), classes)
    passes, attacks = 0, 0
    for column, count in wanted.items():
        count = count or len(plan.dataset.test.take(plan.scale.shift_images))
        attacks += len(built[column])
        passes += count
        passes += count * sum(map(stepped.passes, built[column]))
    return passes, attacks


def _network(config, spec):
    """Returns a backbone's FLOP an image, and FLOP/s as measured on it."""
    classifier = build.build_classifier(config, spec)
    forward = graphs.flops_per_image(classifier)
    count = int(np.clip(_PROBE_FLOPS / forward, 1, config.batch_size))
    images = tf.random.stateless_uniform([count, *spec.image_shape], [0, 0])

    def gradient(images):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            score = tf.reduce_sum(classifier(images, training=False))
        return tape.gradient(score, images)

    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    step = tf.function(gradient, jit_compile=on_gpu)
    step(images)
    times = []
    for _ in range(2):
        begin = time.monotonic()
        step(images).numpy()
        times.append(time.monotonic() - begin)
    return forward, 2 * forward * count / min(times)
