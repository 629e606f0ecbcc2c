"""Trains a classifier to withstand attacks: teacher, student, evaluation.

  atat train --dataset=cifar10
  atat train --dataset=digits --workdir=runs/digits
  atat train --config=configs/at.py --config.num_epochs=30
  atat train --model=my.keras --dataset=folder:photos

The same command resumes after any interruption. With TF_CONFIG set the process
is one of several workers: docs/many_machines.md.
"""

import pathlib

from absl import flags

from atat_tf.errors import expect
from atat_tf.runs import command_line

flags.adopt_module_key_flags(command_line)
_TEACHER = flags.DEFINE_string(
    "teacher",
    None,
    "run folder of a trained teacher (default: trained into WORKDIR/teacher)",
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "a .keras file to harden, in the place of a backbone: it is the teacher, "
    "and the student starts from its weights",
)
_BACKBONE = flags.DEFINE_string(
    "backbone", None, "wide_resnet, ..., or keras:ResNet50 and its like"
)
_UNFREEZE = flags.DEFINE_bool(
    "unfreeze",
    None,
    "with --model: train the layers that the file has frozen, too",
)
_BAD_IMAGES = flags.DEFINE_enum(
    "bad_images",
    None,
    ["stop", "skip"],
    "what to do at image files that cannot be decoded (default: stop)",
)
_MEMORY_BUDGET = flags.DEFINE_float(
    "memory_budget",
    None,
    "gigabytes of images that are held in memory; of a larger data set they "
    "are read as batches need them (default: half of what is free)",
    lower_bound=0.0,
)
_NUM_DEVICES = flags.DEFINE_integer(
    "num_devices",
    None,
    "replicas: GPUs where there are some (default: all), else logical CPUs",
    lower_bound=1,
)


def main(argv: list[str]) -> None:
    del argv
    _refuse_contradictions()
    config = command_line.config(
        teacher=_TEACHER.value,
        model=_MODEL.value,
        unfreeze=_UNFREEZE.value,
        bad_images=_BAD_IMAGES.value,
        **{"backbone.name": _BACKBONE.value},
    )
    data = pathlib.Path(config.dataset.removeprefix("folder:")).name
    workdir = command_line.workdir(
        f"runs/{data}_{config.defense.name}", is_new=True
    )
    data_dir = command_line.data_dir()

    with command_line.quiet_start():  # TensorFlow: not for --help
        from atat_tf.evaluation import printed_table
        from atat_tf.runs import naming
        from atat_tf.training import run as training_run

    results = training_run.train_and_evaluate(
        config,
        workdir,
        data_dir,
        _NUM_DEVICES.value,
        None if _MEMORY_BUDGET.value is None else 1e9 * _MEMORY_BUDGET.value,
    )
    if results:  # None on workers that are not the chief
        printed_table.print_table([(naming.called(config), results)])


def _refuse_contradictions():
    expect(
        not (_MODEL.value and _BACKBONE.value),
        "one of --model and --backbone",
        model=_MODEL.value,
        backbone=_BACKBONE.value,
    )
    expect(
        _MODEL.value or not _UNFREEZE.value,
        "--unfreeze with --model alone",
        unfreeze=_UNFREEZE.value,
    )


if __name__ == "__main__":
    command_line.run(main, resumes=True)
