"""A run opened for attacks: its classifier, test images and ledger."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

import keras
from ml_collections import ConfigDict

from atat_tf.data import arrays, datasets
from atat_tf.data import folders as image_folders
from atat_tf.errors import InputError, expect, expect_known
from atat_tf.evaluation import accuracy as robustness
from atat_tf.evaluation import ledger
from atat_tf.evaluation.attacker import Attacker
from atat_tf.evaluation.run import Run
from atat_tf.models import classifiers, served
from atat_tf.runs import build
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run's classifier, ready to be attacked on test images.

    Attributes:
      run: what it was opened from.
      dataset: the data set whose images are attacked.
      classifier: keras.Model with the stored weights, or a served model.
      attacker: Attacker of it.
      split: the images in question.
      ledger: Ledger that verdicts are taken from and added to.
      seed: of the attacks' random starts.
      weights: which the classifier has: "best", "last" or "ema".
      split_name: which the images are: "test" or "validation".
    """

    run: Run
    dataset: datasets.Dataset
    classifier: keras.Model | served.ServedClassifier
    attacker: Attacker
    split: datasets.Split
    ledger: ledger.Ledger
    seed: int
    weights: str = "best"
    split_name: str = "test"

    @property
    def config(self) -> ConfigDict:
        """The run's."""
        return self.run.config

    @property
    def is_served(self) -> bool:
        """Whether a server answers, scores alone: no gradient can be had."""
        return isinstance(self.classifier, served.ServedClassifier)

    def known_columns(self, names: Iterable[str]) -> dict[str, tuple]:
        """Returns the same of names but those of a plugin that is not here."""
        classes = self.dataset.spec.num_classes
        return build.known_columns(self.config, names, classes)

    def columns(self, names: Iterable[str] | None) -> dict[str, tuple]:
        """Returns {column: its attacks, in order}; None for the config's own.

        Raises:
          InputError: an unknown name.
        """
        return build.build_columns(
            self.config, names, self.dataset.spec.num_classes
        )


def open_run(
    workdir: run_folder.Path,
    num_images: int | None = None,
    bn_eval: str = "frozen",
    weights: str | None = None,
    dataset_name: str | None = None,
    data_dir: run_folder.Path | None = None,
    dataset: datasets.Dataset | None = None,
    seed: int | None = None,
    ledger_folder: run_folder.Path | None = None,
    split: str = "test",
) -> OpenRun:
    """Returns the OpenRun of a run folder.

    Args:
      workdir: the run folder.
      num_images: the first so many images; None for all.
      bn_eval: "frozen" or "batch" statistics, see `Attacker`.
      weights: "best", "last" or "ema"; None for the config's own.
      dataset_name: another data set with the same classes.
      data_dir: of tensorflow-datasets.
      dataset: the Dataset, where the caller has read it already.
      seed: of the attacks' random starts; None for the run's.
      ledger_folder: where the ledger is; None for the run folder.
      split: "test", or "validation" for the images kept aside in training, on
        which a method can be chosen before the test images are looked at.

    Raises:
      InputError: bad arguments, or no run there.
    """
    run = Run(workdir, data_dir)
    weights = weights or run.config.evaluation.weights
    if not run.config.server:
        run_folder.expect_weights(workdir, weights)
    expect_settings(run.config, num_images=num_images)
    expect_known("bn_eval", bn_eval, robustness.BATCH_NORM_MODES)
    expect_known("images", split, run_config.SPLITS)
    if dataset is None:
        dataset = _dataset(run, dataset_name)
    keras.utils.set_random_seed(run.config.seed)
    classifier = run.judged(weights)
    is_served = isinstance(classifier, served.ServedClassifier)
    expect(
        not is_served or bn_eval == "frozen",
        "bn_eval=frozen for a served model",
        bn_eval=bn_eval,
    )
    images = getattr(dataset, split).take(num_images)
    expect(len(images), f"{split} images", num_images=len(images))
    seed = run.config.seed if seed is None else seed
    batch_size = run.config.evaluation.batch_size
    lines = ledger.Ledger(
        pathlib.Path(ledger_folder or workdir) / ledger.FILE,
        ledger.identity(
            classifier.digest
            if isinstance(classifier, served.ServedClassifier)
            else classifiers.weights_digest(classifier),
            dataset.provenance,
            bn_eval,
            seed,
            [batch_size, len(images)],
            split,
        ),
    )
    attacker = Attacker(classifier, batch_size, bn_eval, xla=not is_served)
    return OpenRun(
        run,
        dataset,
        classifier,
        attacker,
        images,
        lines,
        seed,
        weights,
        split,
    )


def expect_settings(
    config: ConfigDict,
    attacks: Sequence[str] | None = None,
    num_images: int | None = None,
) -> None:
    """Raises InputError unless an evaluation can have these settings.

    Args:
      config: resolved.
      attacks: names of columns; None for the config's own.
      num_images: the first so many images; None for all.
    """
    size = config.evaluation.batch_size
    expect(size >= 1, "evaluation.batch_size >= 1", batch_size=size)
    expect(
        num_images is None or num_images >= 1,
        "num_images >= 1",
        num_images=num_images,
    )
    build.build_columns(config, attacks)


def open_teacher(opened: OpenRun) -> OpenRun | None:
    """Returns the OpenRun of a run's teacher on the same images, or None.

    Its lines go into the run's own ledger: its folder may be anybody's.
    """
    return _beside(opened, [opened.run.teacher])


def open_twin(opened: OpenRun) -> OpenRun | None:
    """Returns the OpenRun of an undefended network on the same images.

    The first of `Run.undefended_twins` that is another; None where there is
    none. Its lines are where those of a teacher are.
    """
    return _beside(opened, opened.run.undefended_twins())


def _beside(opened, runs):
    """Returns the OpenRun of the first run that has weights, or None."""
    for run in runs:
        if run and run.has_weights() and not run.is_same(opened.run):
            return open_run(
                run.folder,
                len(opened.split),
                data_dir=opened.run.data_dir,
                dataset=opened.dataset,
                seed=opened.seed,
                ledger_folder=opened.run.folder,
            )
    return None


def _dataset(run, name):
    config = run.config
    if name is not None:
        name = arrays.absolute(image_folders.absolute(name))
    if name in (None, config.dataset):
        return run.dataset
    other = datasets.load(
        name, run.data_dir, image_size=run_config.image_size(config)
    )
    if (other.class_names, other.spec.image_shape) != (
        run.class_names,
        run.spec.image_shape,
    ):
        raise InputError(
            f"Expected a data set with the classes of {config.dataset!r}, "
            f"which the run was trained on. Received: dataset={name!r}."
        )
    return other
