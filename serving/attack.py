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


def main(argv):
    del argv
    workdir = command_line.workdir()
    data_dir = command_line.data_dir()

    with command_line.quiet_start():
        from atat_tf.attacks import square
        from atat_tf.evaluation import attacker as attacker_lib
        from atat_tf.evaluation import evaluate_run
        from atat_tf.runs import terminal

        from . import attacking
        from .client import client as grpc_client
        from .client import errors as client_errors

    config = evaluate_run.load_config(workdir)
    dataset = evaluate_run.load_dataset(config, data_dir)
    split = dataset.test.take(_NUM_IMAGES.value)
    epsilon, count = config.attack.epsilon, len(split)
    problem = split.images, split.labels
    try:
        with grpc_client.Client(_SERVER.value, _MODEL_NAME.value) as client:
            client.wait_until_ready(10.0)
            with terminal.bar("Square over gRPC", count, 1) as advance:
                served, sent = attacking.withstands(
                    client,
                    *problem,
                    epsilon,
                    _QUERIES.value,
                    advance=lambda number: advance(units=number),
                )
    except client_errors.ServingError as error:
        raise InputError(error.message) from error
    classifier = evaluate_run.load_classifier(workdir, dataset.spec)
    runner = attacker_lib.Attacker(classifier, max(1, count // 8))
    offline = runner.run(
        square.Square(epsilon, num_steps=_QUERIES.value - 2),
        *problem,
        np.arange(count),
        np.int64(0),
    )
    terminal.table(
        f"{dataset.provenance}: {count} test images, Square with "
        f"{_QUERIES.value} queries, {sent:,} images sent",
        ["accuracy, %", "under Square"],
        [
            ["served", f"{100 * np.mean(served):.2f}"],
            ["offline", f"{100 * np.mean(~offline.broken):.2f}"],
        ],
    )


if __name__ == "__main__":
    command_line.run(main, recipes=False)
