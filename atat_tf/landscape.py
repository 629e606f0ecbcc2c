"""Draws the loss around images, or accuracy against PGD steps.

atat landscape --workdir=runs/demo --indices=0,1

atat landscape --model=my.keras --dataset=folder:photos

atat landscape --figure=steps --workdirs=A,B,C

Files: PNG, SVG and the numbers as CSV. --figure=steps adds its verdicts to
each run's ledger and goes on where it was stopped.
"""

import sys

from absl import flags

from atat_tf.errors import expect, expect_known
from atat_tf.runs import command_line, parsing

_FIGURES = ("surface", "steps")
# §4.3 of the paper, on the order of the original test set.
_PAPER_INDICES = (1450, 7558)
flags.adopt_module_key_flags(command_line)
_FIGURE = flags.DEFINE_string(
    "figure",
    "surface",
    "surface (loss along the sign gradient and a random direction) or steps "
    "(accuracy after 1, 2, ... PGD steps)",
)
_WORKDIRS = flags.DEFINE_list(
    "workdirs",
    [],
    "several run folders, comma-separated; the Standard one, or else the "
    "teacher in the first, is the raw network",
)
_MODEL = flags.DEFINE_string(
    "model", None, "surface: a .keras file, on --dataset"
)
_MODEL_RANGE = flags.DEFINE_list(
    "model_range",
    None,
    "with --model: what it takes for black and white, as 0,255 (default: 0,1)",
)
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "best, last or ema (default: the recipe's, mostly best)"
)
_INDICES = flags.DEFINE_list(
    "indices",
    [],
    "surface: positions of test images (default: the paper's two of CIFAR-10, "
    "of other sets the first two that all networks classify right)",
)
_EPSILON = flags.DEFINE(
    parsing.RadiusParser(),
    "epsilon",
    8 / 255,
    "surface: the unit of both axes, as 8/255",
)
_EXTENT = flags.DEFINE_float(
    "extent", 2.0, "surface: how far both axes go, in units of epsilon"
)
_RESOLUTION = flags.DEFINE_integer(
    "resolution", 41, "surface: points along an axis, odd"
)
_NUM_STEPS = flags.DEFINE_integer(
    "num_steps", 100, "steps: the most PGD steps", lower_bound=1
)
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", None, "steps: the first so many test images (default: all)"
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "the files' name (default: runs/figures/FIGURE)"
)
_DPI = flags.DEFINE_integer(
    "dpi", 150, "pixels an inch of the PNG", lower_bound=30, upper_bound=1200
)
_ZOOM = 20


def main(argv):
    del argv
    expect_known("--figure", _FIGURE.value, _FIGURES)
    workdirs = command_line.workdirs(_WORKDIRS.value)
    workdirs += [_MODEL.value] if _MODEL.value else []
    expect(workdirs, "--workdir=RUN_FOLDER or --model", workdirs=workdirs)
    expect(
        not _MODEL.value or _FIGURE.value == "surface",
        "--workdir with --figure=steps, whose verdicts are kept there "
        "(evaluate --model makes a run of a .keras file)",
        model=_MODEL.value,
    )
    pixel_range = command_line.model_range(_MODEL_RANGE.value, workdirs)
    indices = command_line.integers("indices", _INDICES.value)
    data_dir = command_line.data_dir()
    command_line.expect_runs(w for w in workdirs if not w.endswith(".keras"))

    with command_line.quiet_start():  # TensorFlow: not for --help
        from atat_tf.reports.figures import files as figure_files
        from atat_tf.reports.figures import networks

    if _FIGURE.value == "surface" and not _MODEL.value:
        workdirs = networks.with_raw(workdirs)
    models = networks.load_all(
        workdirs, _WEIGHTS.value, data_dir=data_dir, pixel_range=pixel_range
    )
    path = figure_files.stem(_OUTPUT.value or f"runs/figures/{_FIGURE.value}")
    seed = command_line.seed() or 0
    if _FIGURE.value == "surface":
        figure, rows = _surface(models, indices, seed, data_dir)
    else:
        figure, rows = _steps(models, workdirs, data_dir)
    for file in figure_files.save(
        figure,
        path,
        command_line.command(),
        rows,
        _DPI.value,
        networks.origins(models, seed),
    ):
        print(file)


def _surface(models, indices, seed, data_dir):
    from atat_tf.reports.figures import landscape as landscape_figures
    from atat_tf.reports.figures import networks, pictures, selection

    dataset = pictures.load_dataset(models[0], command_line.dataset(), data_dir)
    models = networks.with_classes(models, dataset)
    if not indices and dataset.name == "cifar10":
        indices = _PAPER_INDICES
        if "JPEG" in dataset.provenance:
            print(
                "warning: the JPEG copy of CIFAR-10 has another order; its "
                f"images {_PAPER_INDICES} are not those of the original.",
                file=sys.stderr,
            )
    if indices:
        shown = pictures.from_test(dataset, indices)
        chosen = pictures.told(dataset, indices)
    else:
        shown, chosen = selection.selected(models, dataset, len(_PAPER_INDICES))
    return landscape_figures.surface(
        models,
        shown,
        _EPSILON.value,
        _EXTENT.value,
        _RESOLUTION.value,
        seed,
        "On the floor: its contours, and the ball of radius ε. " + chosen,
    )


def _steps(models, workdirs, data_dir):
    from atat_tf.reports.figures import landscape as landscape_figures

    titles = [source.title for source in models]
    return landscape_figures.steps(
        dict(zip(titles, workdirs, strict=True)),
        _NUM_STEPS.value,
        min(_ZOOM, _NUM_STEPS.value),
        _NUM_IMAGES.value,
        weights=_WEIGHTS.value,
        dataset_name=command_line.dataset(),
        data_dir=data_dir,
        seed=command_line.seed(),
    )


if __name__ == "__main__":
    command_line.run(main, recipes=False, resumes=True)
