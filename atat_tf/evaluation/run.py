"""A run folder as an object: its config, figures, ledger and networks."""

import functools
import pathlib
from collections.abc import Set

import keras
from ml_collections import ConfigDict

from atat_tf.data import datasets
from atat_tf.evaluation import ledger as ledgers
from atat_tf.models import served
from atat_tf.runs import build, shipped, terminal
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder

# What the readers of a file cannot do without.
_RESULTS_FIELDS = {
    "dataset",
    "data",
    "method",
    "num_images",
    "bn_eval",
    "seed",
    "accuracy",
    "attacks",
}
_CHECKLIST_FIELDS = {"points", "num_images"}


class Run:
    """What training and evaluation have left in a folder.

      run = Run("runs/demo")
      run.config.defense.name
      run.results["accuracy"]["pgd20"]
      run.classifier()(images)

    The config is read at once. Everything else is read when it is asked for,
    and files that change while others work on the run are read anew each time.

    Args:
      folder: of `train`'s --workdir, or an archive of it.
      data_dir: of tensorflow-datasets.

    Attributes:
      folder: pathlib.Path.
      data_dir: as given.
      config: ml_collections.ConfigDict, locked; fields that a run of an
        earlier version lacks have their defaults.

    Raises:
      InputError: no run there.
    """

    def __init__(
        self,
        folder: run_folder.Path,
        data_dir: run_folder.Path | None = None,
    ) -> None:
        self.folder = pathlib.Path(folder)
        self.data_dir = data_dir
        self.config: ConfigDict = run_config.read(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @functools.cached_property
    def spec(self) -> datasets.Spec:
        """Shape of the images and number of the classes."""
        return run_config.data_spec(self.config, self.data_dir)

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        names = self.spec.class_names
        if not names:
            names = datasets.class_names(self.config.dataset, self.data_dir)
        return tuple(names)

    @functools.cached_property
    def dataset(self) -> datasets.Dataset:
        """The images, in the splits that the run was trained with.

        Raises:
          InputError: they are not there, or of other classes.
        """
        return build.load_dataset(self.config, self.data_dir)

    @property
    def metrics(self) -> list[dict]:
        """The figures of each epoch so far, in order."""
        return run_folder.read_metrics(self.folder)

    @property
    def results(self) -> dict | None:
        """What `evaluate` wrote last, or None.

        None too where that is of validation images: who reads results here
        speaks of test images.

        Raises:
          InputError: results.json is not what `evaluate` writes.
        """
        results = self.read(run_folder.RESULTS, _RESULTS_FIELDS)
        if results and results.get("split", "test") != "test":
            return None
        return results

    @property
    def checklist(self) -> dict | None:
        """What `evaluate --checklist` wrote last, or None.

        Raises:
          InputError: checklist.json is not what it writes.
        """
        return self.read(run_folder.CHECKLIST, _CHECKLIST_FIELDS)

    @property
    def has_ledger(self) -> bool:
        """Whether any verdict on an image is recorded."""
        return ledgers.is_in(self.folder)

    @property
    def ledger(self) -> ledgers.Ledger | None:
        """The verdicts that `results` were computed from, or None."""
        results = self.results
        if not results or "weights_digest" not in results:
            return None
        if not self.has_ledger:
            return None
        return ledgers.of_results(self.folder, results)

    def classifier(self, weights: str | None = None) -> keras.Model:
        """Returns a new network with the run's weights.

        Args:
          weights: "best", "last" or "ema"; None for the config's own.

        Returns:
          keras.Model, float32 [b, H, W, C] in [0, 1] -> logits [b, k].

        Raises:
          InputError: there are no such weights, or they do not fit.
        """
        weights = weights or self.config.evaluation.weights
        if not self.config.server:  # which `build_classifier` refuses
            run_folder.expect_weights(self.folder, weights)
        terminal.stage(f"building the network of {self.folder}")
        classifier = build.build_classifier(
            self.config, self.spec, self.folder / run_folder.MODEL
        )
        run_folder.load_weights(self.folder, weights, classifier)
        return classifier

    def attacks(self, column: str) -> tuple:
        """Returns a column's attacks; () where they are an absent plugin's."""
        classes = self.spec.num_classes
        known = build.known_columns(self.config, [column], classes)
        return known.get(column, ())

    def judged(
        self, weights: str | None = None
    ) -> keras.Model | served.ServedClassifier:
        """Returns what an evaluation judges.

        Args:
          weights: as for `classifier`, which it is but for a served model.

        Raises:
          InputError: as for `classifier`, or no server answers.
        """
        if self.config.server:
            return build.build_judged(self.config, self.spec)
        return self.classifier(weights)

    def has_weights(self) -> bool:
        """Returns whether the folder has the config's own weights."""
        own = self.config.evaluation.weights
        return run_folder.weights_path(self.folder, own).exists()

    def is_same(self, other: "Run") -> bool:
        """Returns whether both are one folder."""
        return self.folder.resolve() == other.folder.resolve()

    @property
    def teacher_folder(self) -> pathlib.Path:
        """Where the teacher's run is, if the run has a teacher."""
        return run_folder.teacher_folder(self.folder, self.config.teacher)

    @property
    def teacher(self) -> "Run | None":
        """The teacher's run, or None where there is none (any more)."""
        if not (self.teacher_folder / run_folder.CONFIG).exists():
            return None
        return Run(self.teacher_folder, self.data_dir)

    def undefended_twins(self) -> "list[Run]":
        """Returns runs without a defense on the same data, itself perhaps.

        The teacher comes first, unless it is robust. Then come the archived
        ones, those of the same backbone first, then those of its kind, whose
        gradients are the most like the run's own; a wheel has those of
        `shipped.NETWORKS` alone.
        """
        teacher = self.teacher
        runs: list[Run] = []
        for path in sorted(shipped.ARCHIVE.glob(f"**/{run_folder.CONFIG}")):
            run = Run(path.parent, self.data_dir)
            fields = "dataset", "image_size", "image_shape"
            same = all(run.config[f] == self.config[f] for f in fields)
            if same and not (teacher and run.is_same(teacher)):
                runs.append(run)
        own = self.config.backbone
        runs.sort(
            key=lambda run: (
                run.config.backbone.name != own.name,
                run.config.backbone != own,
            )
        )
        return [
            run
            for run in ([teacher] if teacher else []) + runs
            if run.config.defense.name == "standard" and run.has_weights()
        ]

    def read(self, name: str, fields: Set[str] = frozenset()) -> dict | None:
        """Returns what a JSON file of the folder holds, or None.

        Args:
          name: of the file.
          fields: which it must have.

        Raises:
          InputError: it is not JSON, or lacks one of the fields.
        """
        path = self.folder / name
        return run_folder.read_json(path, fields) if path.exists() else None
