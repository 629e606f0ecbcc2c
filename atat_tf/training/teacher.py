"""A saved model as the teacher of a run: frozen as it is, and measured."""

import pathlib

import ml_collections
import numpy as np

from atat_tf.data import datasets
from atat_tf.evaluation import accuracy as robustness
from atat_tf.runs import build, terminal
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder


def write_teacher(
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    dataset: datasets.Dataset,
    called: str = "teacher",
) -> None:
    """Makes the teacher's run folder from the config's saved model.

    Nothing is trained: its weights are the file's, so that the teacher can be
    evaluated, compared and served as one that was trained here.

    Args:
      config: the student's, with `model`.
      folder: the teacher's run folder.
      dataset: on whose validation images it is measured.
      called: what it is in the line that is printed.
    """
    run_folder.create(folder)
    run_folder.keep_model(config.model, folder)
    teacher_config = run_config.teacher_config(config)
    classifier = build.build_classifier(
        teacher_config, dataset.spec, folder / run_folder.MODEL
    )
    # The config is last: a folder that has it is whole.
    run_folder.save_weights(folder, "best", classifier)
    run_folder.write_json(
        folder / run_folder.CONFIG, run_config.to_dict(teacher_config)
    )
    correct = robustness.Evaluator(classifier, {"clean": None}).correct(
        "clean", dataset.validation, config.evaluation.batch_size
    )
    accuracy = float(np.mean(correct))
    console = terminal.console()
    console.print(
        f"{called}: {config.model}, {100 * accuracy:.2f} % of "
        f"{len(correct):,} validation images"
    )
    if accuracy <= 1.5 / dataset.spec.num_classes:
        console.print(
            "  that is hardly more than chance: are the classes in the order "
            "of the model's outputs, and are pixels from "
            f"{config.model_range[0]:g} to {config.model_range[1]:g} "
            "(--config.model_range) what it takes?"
        )
