"""Writes a trained classifier as a version that TF Serving can host.

  atat export --workdir=runs/demo --output=runs/demo/models/atat
  atat export --model=my.keras --output=models/mine

The version appears whole, with warm-up requests and model_card.json, after
its answers were compared with the model's in memory.
"""

from absl import flags

from atat_tf.errors import InputError
from atat_tf.runs import command_line

flags.declare_key_flag("workdir")
flags.declare_key_flag("data_dir")
_OUTPUT = flags.DEFINE_string(
    "output", None, "folder of the versions; its last name is the model's"
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "a .keras file instead of --workdir: images -> logits or softmax",
)
_MODEL_RANGE = flags.DEFINE_list(
    "model_range",
    None,
    "with --model: what the model takes for black and white, as 0,255 "
    "(default: 0,1)",
)
_VERSION = flags.DEFINE_integer(
    "version", None, "number of the version (default: the next free one)"
)
_LAYER = flags.DEFINE_string(
    "layer",
    None,
    "layer whose attention is answered (default: the run's own, or the last "
    "one with spatial extent)",
)
_SCORE = flags.DEFINE_string(
    "score",
    None,
    "score of a class that attention explains: logit, centred (less the mean "
    "of all) or margin (less the largest other) (default: the run's own, "
    "mostly logit)",
)
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "best, last or ema (default: the recipe's, mostly best)"
)
_REFERENCE_IMAGES = flags.DEFINE_integer(
    "reference_images",
    0,
    "with --workdir: the first so many test images, whose attention_shift goes "
    "into the model card, for the server's metric",
    lower_bound=0,
)


def main(argv: list[str]) -> None:
    del argv
    if not _OUTPUT.value:
        raise InputError("Expected --output=MODELS/NAME. Received: none.")
    workdir = command_line.workdir(default=_MODEL.value)
    if _MODEL.value and str(workdir) != _MODEL.value:
        raise InputError(
            "Expected one of --workdir and --model. Received: both."
        )
    for name, value in (
        ("weights", _WEIGHTS.value),
        ("reference_images", _REFERENCE_IMAGES.value),
    ):
        if _MODEL.value and value:
            raise InputError(
                f"Expected --{name} with --workdir alone. Received: "
                f"--model={_MODEL.value} and --{name}={value}."
            )
    pixel_range = command_line.model_range(_MODEL_RANGE.value, [_MODEL.value])
    data_dir = command_line.data_dir()
    if not _MODEL.value:
        command_line.expect_runs([workdir])

    with command_line.quiet_start():
        from .saved_model import writing

    if _MODEL.value:
        folder = writing.export_model(
            _MODEL.value,
            _OUTPUT.value,
            _VERSION.value,
            _LAYER.value,
            pixel_range,
            _SCORE.value,
        )
    else:
        folder = writing.export_run(
            workdir,
            _OUTPUT.value,
            _VERSION.value,
            _LAYER.value,
            _WEIGHTS.value,
            data_dir,
            _REFERENCE_IMAGES.value,
            _SCORE.value,
        )
    card = writing.read_card(folder)
    print(
        f"Exported {folder}: signatures {', '.join(card['signatures'])}; "
        f"attention at {card['attention_layer']} ({card['attention_method']})."
    )


if __name__ == "__main__":
    command_line.run(main, recipes=False)
