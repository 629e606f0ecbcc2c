"""Trains a classifier to withstand attacks: teacher, student, evaluation.

  python -m atat_tf.train --dataset=cifar10
  python -m atat_tf.train --dataset=digits --workdir=runs/digits
  python -m atat_tf.train --config=configs/at.py --config.num_epochs=30

Run it again to go on after any interruption. With TF_CONFIG set it is one of
several workers: docs/many_machines.md.
"""

from absl import flags

from atat_tf import command_line

flags.adopt_module_key_flags(command_line)
_TEACHER = flags.DEFINE_string(
    "teacher",
    None,
    "run folder of a trained teacher (default: trained into WORKDIR/teacher)",
)
_NUM_DEVICES = flags.DEFINE_integer(
    "num_devices",
    None,
    "replicas: GPUs where there are some (default: all), else logical CPUs",
    lower_bound=1,
)


def main(argv):
    del argv
    config = command_line.config(teacher=_TEACHER.value)
    workdir = command_line.workdir(
        f"runs/{config.dataset}_{config.defense.name}"
    )
    data_dir = command_line.data_dir()

    with command_line.quiet_start():  # TensorFlow: not for --help
        from atat_tf import results_table, training

    results = training.train_and_evaluate(
        config, workdir, data_dir, _NUM_DEVICES.value
    )
    if results:  # the chief's, where there are several workers
        results_table.print_table([results])


if __name__ == "__main__":
    command_line.run(main)
