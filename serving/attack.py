"""Attacks a served model by its scores alone, beside the offline figure.

  python -m serving.attack --server=localhost:8500 --model_name=atat \\
      --workdir=runs/demo --num_images=50 --queries=500

Runs Square (Andriushchenko et al. 2020) through gRPC on test images of the
run, and the same attack on the run's own network without a server.
"""

import numpy as np
from absl import flags

from atat_tf.errors import InputError
from atat_tf.runs import command_line

flags.declare_key_flag("workdir")
flags.declare_key_flag("data_dir")
_SERVER = flags.DEFINE_string(
    "server", "localhost:8500", "host:port, or unix:PATH of a socket"
)
_MODEL_NAME = flags.DEFINE_string(
    "model_name", "atat", "as the server names it"
)
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", 50, "the first so many test images", lower_bound=1
)
_QUERIES = flags.DEFINE_integer(
    "queries", 500, "for each image, at most", lower_bound=3
)


def main(argv: list[str]) -> None:
    del argv
    workdir = command_line.workdir()
    data_dir = command_line.data_dir()

    with command_line.quiet_start():
        import tensorflow as tf

        from atat_tf.evaluation.run import Run
        from atat_tf.runs import terminal

        from . import served_classifier
        from .client import Client, ServingError

    run = Run(workdir, data_dir)
    dataset = run.dataset
    split = dataset.test.take(_NUM_IMAGES.value)
    queries = _QUERIES.value
    problem = split.images, split.labels, run.config.attack.epsilon, queries
    spec = dataset.spec
    with Client(_SERVER.value, _MODEL_NAME.value) as client:
        served = served_classifier.ServedClassifier(
            client, spec.image_shape, spec.num_classes
        )
        total = len(split) * (queries - 2)
        try:
            terminal.stage(f"waiting for {_SERVER.value}")
            client.wait_until_ready(10.0)
            with terminal.bar("Square over gRPC", total, 1) as advance:
                online = served_classifier.withstands(
                    served, *problem, lambda count: advance(units=count)
                )
        except (ServingError, tf.errors.OpError) as error:
            raise InputError((served.error or error).message) from error
    local = run.classifier()
    terminal.stage("Square on the network itself")
    offline = served_classifier.withstands(local, *problem)
    terminal.table(
        f"{dataset.provenance}: {len(split)} test images, Square with "
        f"{queries} queries, {served.sent:,} images sent",
        ["accuracy, %", "under Square"],
        [
            ["served", f"{100 * np.mean(online):.2f}"],
            ["offline", f"{100 * np.mean(offline):.2f}"],
        ],
    )


if __name__ == "__main__":
    command_line.run(main, recipes=False)
