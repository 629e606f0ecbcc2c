"""Training from a config to a run folder: teacher, student, evaluation.

Runs can be killed at any moment: the same command resumes from the last
checkpoint, on CPU to the same bits.
"""

import pathlib

import keras
import ml_collections
import tensorflow as tf

from atat_tf.data import datasets
from atat_tf.errors import expect
from atat_tf.evaluation import evaluate_run
from atat_tf.evaluation.run import Run
from atat_tf.evaluation.statistics import intervals
from atat_tf.models import checks as model_checks
from atat_tf.models import graphs
from atat_tf.runs import build, terminal
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.training import build as training_build
from atat_tf.training import loop
from atat_tf.training import teacher as training_teacher
from atat_tf.training.machines import membership, workers


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    data_dir: str | None = None,
    num_devices: int | None = None,
    memory_budget: float | None = None,
) -> dict | None:
    """Trains what the config names, and its teacher, and evaluates it.

    Args:
      config: a recipe's ConfigDict; it is resolved and validated here.
      workdir: the run folder; an earlier run of the same config is resumed.
      data_dir: of tensorflow-datasets.
      num_devices: as for `training_build.build_strategy`.
      memory_budget: as for `datasets.load`; it makes no difference to what is
        trained.

    Returns:
      The results, as results.json holds them; None on a worker that is not
      the chief.

    Raises:
      InputError: bad config, data, teacher or workdir; nothing was started.
      Busy: another process trains in the folder, or its teacher's.
      FloatingPointError: the loss is no longer finite.
      TrainingError: the config's guard has stopped the training.
      OSError: a file could not be written.
      ConnectionError: another worker is gone; see `membership`.
    """
    cluster = membership.from_environment()
    workdir = pathlib.Path(workdir)
    strategy = None
    if cluster.count > 1:
        # Before TensorFlow has run anything, as a saved model's config does.
        strategy = workers.build_strategy(cluster, num_devices)
    with membership.watched(cluster):
        config = run_config.resolve(config)
        run_checks.validate(config, data_dir)
        if cluster.is_chief:
            run_checks.expect_same_config(workdir, config)
            if config.teacher:
                folder = run_folder.teacher_folder(workdir, config.teacher)
                run_checks.expect_fitting_teacher(config, folder)
        strategy = strategy or training_build.build_strategy(
            num_devices,
            bool(config.gradient_accumulation_steps)
            or config.weight_perturbation > 0
            or config.teacher_momentum > 0,
        )
        if not tf.config.list_physical_devices("GPU"):
            # A resumed run repeats the killed one to the bit; on GPUs it
            # would cost speed, and no such promise is made.
            tf.config.experimental.enable_op_determinism()
        dataset = build.load_dataset(config, data_dir, memory_budget)
        _train(config, workdir, dataset, strategy, memory_budget)
    if not cluster.is_chief:
        return None
    _tell_of_chance(workdir, dataset)
    # Also where nothing was left to train: a kill may have come meanwhile, and
    # results.json be of a look at fewer images. What the ledger has is not run
    # again.
    return evaluate_run.evaluate_run(
        workdir, data_dir=data_dir, dataset=dataset
    )


def _tell_of_chance(workdir, dataset):
    """Says so where a training has ended with a network that guesses."""
    epochs = Run(workdir).metrics
    count, classes = len(dataset.validation), dataset.spec.num_classes
    accuracies = [epoch["validation_clean_accuracy"] for epoch in epochs]
    if not accuracies or intervals.is_above_chance(
        max(accuracies), count, classes
    ):
        return
    terminal.console().print(
        f"{workdir}: at most {100 * max(accuracies):.1f} % of {count:,} "
        "validation images were right after an epoch, which is not above "
        f"chance ({100 / classes:.3g} %, one of {classes} classes) by two "
        "standard errors: the network guesses. Train for more epochs "
        "(--config.num_epochs) or on more images, or look whether the labels "
        "are those of the images."
    )


def _train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    dataset: datasets.Dataset,
    strategy: tf.distribute.Strategy,
    memory_budget: float | None,
) -> None:
    """Trains what is left of a run, and of its teacher."""
    group = workers.WorkerGroup(strategy)
    group.expect_same(f"{config.to_json()} {dataset.provenance}")
    run_checks.expect_a_batch(config, dataset, strategy)
    if group.is_chief:
        terminal.stage(f"building {run_config.network_name(config)}")
    with strategy.scope():
        # A layer that is unknown is refused before a folder is made.
        classifier = build.build_classifier(config, dataset.spec)
        graphs.with_taps(classifier, build.build_defense(config).layers)
    trained, frozen = model_checks.expect_weights_to_train(classifier)
    expect(
        not frozen or config.student_start == "teacher",
        "student_start=teacher, or --unfreeze, for a model with frozen layers: "
        "random weights that are never trained are of no use",
        student_start=config.student_start,
        frozen=frozen,
    )
    if frozen and group.is_chief:
        terminal.console().print(
            f"student: {trained:,} of {trained + frozen:,} weights are trained,"
            " the file has frozen the others (--unfreeze trains all)"
        )
    if group.is_chief:
        run_folder.create(workdir)
    teacher = None
    if run_config.needs_teacher(config):
        teacher = _trained_teacher(
            config, workdir, dataset, strategy, memory_budget
        )
    loop.TrainingLoop(
        config, workdir, dataset, strategy, teacher, memory_budget
    ).run()
    group.barrier()  # A worker that exits before this one is reported as lost.


def _trained_teacher(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    dataset: datasets.Dataset,
    strategy: tf.distribute.Strategy,
    memory_budget: float | None,
) -> keras.Model:
    """Returns the teacher; it is trained first where the config names none."""
    group = workers.WorkerGroup(strategy)
    folder = run_folder.teacher_folder(workdir, config.teacher)
    if not config.teacher:
        teacher_config = run_config.teacher_config(config)
        if group.is_chief:
            run_checks.expect_same_config(folder, teacher_config)
        if not config.model:
            loop.TrainingLoop(
                teacher_config,
                folder,
                dataset,
                strategy,
                memory_budget=memory_budget,
            ).run()
        elif group.is_chief:
            training_teacher.write_teacher(config, folder, dataset)
    with strategy.scope():
        teacher = build.build_classifier(config, dataset.spec)
        # The chief alone reads; the folder need not be on other machines.
        own = "best"
        if group.is_chief:
            own = run_config.read(folder).evaluation.weights
        group.load_weights(folder, own, teacher)
    return teacher
