"""A run folder of `train` as an object."""

import functools
import html
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
from ml_collections import ConfigDict

from atat_tf.api import notebook
from atat_tf.api.attended import Attention, attention
from atat_tf.errors import with_checked_types
from atat_tf.evaluation import evaluate_run, printed_table
from atat_tf.evaluation import run as runs
from atat_tf.models import classifiers
from atat_tf.runs import build, naming, shipped
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder

_SHOWN = 8


class Run:
    """What `atat train` has left in a folder.

    Attributes:
      folder: pathlib.Path.
      config: the resolved recipe.
    """

    def __init__(self, run: runs.Run) -> None:
        self._run = run
        self.folder: pathlib.Path = run.folder
        self.config: ConfigDict = run.config

    def __repr__(self) -> str:
        name, data = naming.called(self.config), self.config.dataset
        results = self.results or {}
        accuracies = ", ".join(
            [
                f"{column} {100 * share:.2f} %"
                for column, share in results.get("accuracy", {}).items()
            ]
            + [
                f"{column} about {100 * found['accuracy']:.1f} %"
                for column, found in results.get("estimates", {}).items()
            ]
        )
        what = f"Run of {name} on {data} in {str(self.folder)!r}"
        return f"{what}: {accuracies or 'not evaluated'}"

    def _repr_html_(self) -> str:
        teacher = self._run.teacher
        named = [
            (naming.called(run.config), run.results)
            for run in (teacher, self._run)
            if run and run.results
        ]
        if not named:
            return f"<p>{html.escape(repr(self))}</p>"
        shown = printed_table.table(named)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in shown.notes)
        caption = f"{self.folder}: {shown.title}"
        return notebook.table(shown.rows, shown.columns, caption) + notes

    @functools.cached_property
    def student(self) -> keras.Model:
        """The network, with the weights that the recipe evaluates.

        keras.Model, float32 [b, H, W, C] in [0, 1] -> logits [b, k].
        """
        return self._run.classifier()

    @functools.cached_property
    def teacher(self) -> keras.Model | None:
        """Its teacher's network, likewise; None where there is none."""
        teacher = self._run.teacher
        if teacher is None or not teacher.has_weights():
            return None
        return teacher.classifier()

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return self._run.class_names

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The figures of each epoch so far, {name: figure}."""
        return self._run.metrics

    @property
    def results(self) -> dict[str, Any] | None:
        """What `evaluate` found last on test images; None before."""
        return self._run.results

    @with_checked_types
    def evaluate(
        self, attacks: str | Sequence[str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Returns the results, and writes them and the ledger to the folder.

        Args:
          attacks: names of columns, or one; None for those of the recipe.
          **options: of `evaluate_run.evaluate_run`, as num_images=1000.
        """
        if isinstance(attacks, str):
            attacks = (attacks,)
        options = {"data_dir": self._run.data_dir, **options}
        return evaluate_run.evaluate_run(self.folder, attacks, **options)

    @with_checked_types
    def report(
        self, path: str | pathlib.Path | None = None, num_images: int = 64
    ) -> pathlib.Path:
        """Writes the report, one HTML page, and returns its path.

        Args:
          path: None for report.html in the folder.
          num_images: the first so many test images are shown.
        """
        # Jinja is an extra, which nothing else here needs.
        from atat_tf.reports.page import page

        path = pathlib.Path(path or self.folder / "report.html")
        data_dir = self._run.data_dir and str(self._run.data_dir)
        text = page.page(self.folder, data_dir or None, num_images)
        run_folder.write_text(path, text)
        return path

    @with_checked_types
    def export(
        self,
        output: str | pathlib.Path,
        version: int | None = None,
        score: str | None = None,
    ) -> pathlib.Path:
        """Writes a SavedModel for TF Serving, and returns its folder.

        Args:
          output: the folder of the versions, named as the model.
          version: its number; None for the next free one.
          score: of a class, that attention explains: "logit", "centred" or
            "margin"; None for the one that the run was trained with.
        """
        # Serving is an extra, and above all else.
        from atat_tf.serving.saved_model import writing

        return writing.export_run(
            self.folder,
            output,
            version,
            data_dir=self._run.data_dir,
            score=score,
        )

    @with_checked_types
    def attention(
        self,
        num_images: int = _SHOWN,
        layer: str | None = None,
        score: str | None = None,
    ) -> Attention:
        """Returns where the student looks on the first test images.

        Args:
          num_images: how many.
          layer: None for the defense's last, "deepest" where it has none.
          score: as for `export`.
        """
        layers = build.defense_layers(self.config)
        split = self._run.dataset.test.take(num_images)
        return attention(
            self.student,
            split.images[:],
            split.labels,
            layer=classifiers.shown_layer(self.student, layers, layer),
            score=score or run_config.score(self.config),
        )


@with_checked_types
def load(
    folder: str | pathlib.Path, data_dir: str | pathlib.Path | None = None
) -> Run:
    """Returns the Run of a folder that `atat train` has written.

    The config is read at once, networks and images when they are asked for.

    Example, of a run in runs/demo (`make demo`):

      run = atat.load("runs/demo")
      atat.robust_accuracy(run.student, x, y)
      run.export("models/demo")

    Args:
      folder: of --workdir, or an archive of it; or the name of a network that
        comes with the package: "undefended", "reference",
        "reference_small" or "reference_small_atat".
      data_dir: of tensorflow-datasets.

    Raises:
      InputError: no run there.
    """
    return Run(runs.Run(shipped.found(folder), data_dir))
