"""Draws where networks look, before and after an attack, as PNG, SVG and CSV.

atat inspect --workdir=runs/demo

atat inspect --models=VGG16,ResNet50 --images=photos

atat inspect --model=my.keras --model_range=0,255 \\
    --dataset=folder:photos

atat inspect --figure=rounds --rounds=0,2,8,16 \\
    --epsilon=16/255 --workdir=runs/demo/teacher

atat inspect --figure=ablation --workdirs=A,B,C,D

atat inspect --figure=methods --workdir=runs/demo
"""

from absl import flags

from atat_tf.errors import InputError, expect, expect_known
from atat_tf.runs import command_line, parsing

_FIGURES = ("shift", "rounds", "ablation", "methods")
_SELECTIONS = ("first", "broken", "moved", "random")
flags.adopt_module_key_flags(command_line)
_FIGURE = flags.DEFINE_string(
    "figure",
    "shift",
    "shift (clean and attacked, over networks), rounds (after more and more "
    "steps), ablation (raw and defended networks) or methods (tf-keras-vis)",
)
_WORKDIRS = flags.DEFINE_list(
    "workdirs", [], "several run folders, comma-separated"
)
_MODELS = flags.DEFINE_list(
    "models",
    [],
    "run folders, .keras files, or names of keras.applications as VGG16, "
    "DenseNet121, ResNet50, comma-separated",
)
_MODEL = flags.DEFINE_string("model", None, "one such, as --models")
_MODEL_RANGE = flags.DEFINE_list(
    "model_range",
    None,
    "what .keras files take for black and white, as 0,255 (default: 0,1)",
)
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "of runs: best, last or ema (default: the recipe's); of networks of "
    "keras.applications: imagenet (default), none (untrained, and marked so) "
    "or a file",
)
_LAYER = flags.DEFINE_string(
    "layer",
    None,
    "the layer of the maps (default: where a run's defense acts, otherwise the "
    "last one with a map)",
)
_IMAGES = flags.DEFINE_list(
    "images",
    [],
    "image files or folders of them, comma-separated (default: test images of "
    "the first run's data set, or of --dataset)",
)
_SELECT = flags.DEFINE_string(
    "select",
    "first",
    "which of the test images that all networks classify right (for ablation: "
    "that the raw one does): first, broken (the attack breaks the first "
    "network), moved (its attention moves most) or random",
)
_INDICES = flags.DEFINE_list(
    "indices",
    [],
    "positions of test images (default: as --select says)",
)
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images",
    None,
    "how many pictures (default: all of --images, else 4)",
    lower_bound=1,
)
_EPSILON = flags.DEFINE(
    parsing.RadiusParser(),
    "epsilon",
    8 / 255,
    "radius of the attack, as 8/255",
)
_STEP_SIZE = flags.DEFINE(
    parsing.RadiusParser(),
    "step_size",
    None,
    "step of the attack, as 2/255 (default: a quarter of --epsilon)",
)
_NUM_STEPS = flags.DEFINE_integer(
    "num_steps", 20, "steps of the attack", lower_bound=1
)
_ROUNDS = flags.DEFINE_list(
    "rounds", ["0", "2", "8", "16"], "numbers of steps, for --figure=rounds"
)
_METHODS = flags.DEFINE_list(
    "methods",
    ["gradcam", "gradcam++", "scorecam", "layercam", "saliency"],
    "methods of tf-keras-vis, for --figure=methods",
)
_FOLLOWED = flags.DEFINE_string(
    "attention_of",
    "label",
    "whose score a map explains: the label's, as Eq. 3, or that of the class "
    "predicted on each image",
)
_SCORE = flags.DEFINE_string(
    "score",
    None,
    "score of a class that maps explain: logit, centred (less the mean of all) "
    "or margin (less the largest other) (default: each network's own, mostly "
    "logit)",
)
_CRAFTED = flags.DEFINE_string(
    "crafted",
    "each",
    "for ablation: each network is attacked itself, or all see the images "
    "that are crafted on the raw one",
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "the files' name (default: runs/figures/FIGURE)"
)
_DPI = flags.DEFINE_integer(
    "dpi", 150, "pixels an inch of the PNG", lower_bound=30, upper_bound=1200
)


def main(argv):
    del argv
    expect_known("--figure", _FIGURE.value, _FIGURES)
    expect_known("--select", _SELECT.value, _SELECTIONS)
    expect_known("--attention_of", _FOLLOWED.value, ("label", "predicted"))
    names = [*command_line.workdirs(_WORKDIRS.value), *_MODELS.value]
    names += [_MODEL.value] if _MODEL.value else []
    pixel_range = command_line.model_range(_MODEL_RANGE.value, names)
    indices = command_line.integers("indices", _INDICES.value)
    rounds = command_line.integers("rounds", _ROUNDS.value)
    expect(names, "a network: --workdir, --workdirs or --models", models=names)
    data_dir = command_line.data_dir()

    with command_line.quiet_start():  # TensorFlow: not for --help
        from atat_tf.reports.figures import files as figure_files
        from atat_tf.reports.figures import networks

    if _FIGURE.value == "ablation":
        names = networks.with_raw(names)
    models = networks.load_all(
        names,
        _WEIGHTS.value,
        _LAYER.value,
        data_dir,
        pixel_range,
        _SCORE.value,
    )
    expect(
        _FIGURE.value != "methods" or len(models) == 1,
        "one network for --figure=methods",
        models=names,
    )
    models, shown, caption = _pictures(models, indices, data_dir)
    path = figure_files.stem(_OUTPUT.value or f"runs/figures/{_FIGURE.value}")
    figure, rows = _drawn(models, shown, caption, rounds)
    for file in figure_files.save(
        figure,
        path,
        command_line.command(),
        rows,
        _DPI.value,
        networks.origins(models, command_line.seed() or 0),
    ):
        print(file)


def _pictures(models, indices, data_dir):
    """Returns the models, the pictures, and how these were chosen."""
    from atat_tf.attacks import linf
    from atat_tf.reports.figures import networks, pictures, selection

    if _IMAGES.value:
        if indices:
            raise InputError("Expected --images or --indices. Received: both.")
        shown = pictures.from_files(_IMAGES.value)[: _NUM_IMAGES.value]
        return models, shown, ""
    dataset = pictures.load_dataset(models[0], command_line.dataset(), data_dir)
    models = networks.with_classes(models, dataset)
    if indices:
        shown = pictures.from_test(dataset, indices)
        return models, shown, pictures.told(dataset, indices)
    shown, caption = selection.selected(
        models[:1] if _FIGURE.value == "ablation" else models,
        dataset,
        _NUM_IMAGES.value or 4,
        _SELECT.value,
        linf.pgd(_EPSILON.value, _step_size(), _NUM_STEPS.value),
        command_line.seed() or 0,
    )
    return models, shown, caption


def _step_size():
    """Returns --step_size, or the share of ε that §4.1 has: 2 of 8."""
    return _STEP_SIZE.value or _EPSILON.value / 4


def _drawn(models, shown, caption, rounds):
    from atat_tf.reports.figures import attention as attention_figures
    from atat_tf.reports.figures import methods as method_figures

    setting = attention_figures.Setting(
        epsilon=_EPSILON.value,
        step_size=_step_size(),
        num_steps=_NUM_STEPS.value,
        seed=command_line.seed() or 0,
        followed=_FOLLOWED.value,
        caption=caption,
    )
    if _FIGURE.value == "shift":
        return attention_figures.shift(models, shown, setting)
    if _FIGURE.value == "rounds":
        return attention_figures.rounds(models, shown, setting, rounds)
    if _FIGURE.value == "ablation":
        return attention_figures.ablation(
            models, shown, setting, _CRAFTED.value
        )
    return method_figures.methods(models[0], shown, setting, _METHODS.value)


if __name__ == "__main__":
    command_line.run(main, recipes=False)
