"""Measures a trained run's accuracy under attack and writes results.json.

atat evaluate --workdirs=runs/demo/teacher,runs/demo

atat evaluate --workdir=runs/demo --attacks=standard,pgd20x10

atat evaluate --workdir=runs/demo --checklist

atat evaluate --workdir=runs/demo --shard=3/16

atat evaluate --model=my.keras --dataset=folder:photos

atat evaluate --server=localhost:8500 --model_name=mine \\
    --dataset=folder:photos --attacks=clean,square500 --num_images=50
"""

import json
import pathlib
import sys

from absl import flags

from atat_tf.errors import InputError, expect
from atat_tf.evaluation import sharding
from atat_tf.runs import command_line, parsing, recipes

flags.adopt_module_key_flags(command_line)
_WORKDIRS = flags.DEFINE_list(
    "workdirs", [], "several run folders, comma-separated: a row for each"
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "a .keras file to evaluate on --dataset: it becomes a run, in --workdir or "
    "runs/evaluated/NAME, which every other command takes",
)
_MODEL_RANGE = flags.DEFINE_list(
    "model_range",
    None,
    "with --model: what the model takes for black and white, as 0,255 "
    "(default: 0,1)",
)
_SERVER = flags.DEFINE_string(
    "server",
    None,
    "host:port, or unix:PATH of a socket, of a gRPC server whose model is "
    "evaluated on --dataset by its scores alone (clean and square): it becomes "
    "a run as --model does",
)
_MODEL_NAME = flags.DEFINE_string(
    "model_name", None, "with --server: as the server names the model"
)
_ATTACKS = flags.DEFINE_list(
    "attacks",
    None,
    "columns: clean, fgsm, ifgsm<steps>, pgd<steps>, pgd<steps>x<restarts> as "
    "pgd20x10; autoattack (or standard) and its parts apgd_ce, apgd_dlr, "
    "apgd_t, fab_t, square; any of them at a radius of its own, as "
    "pgd20@4/255, of which α is the same share (default: those of the paper's "
    "table for the data set)",
)
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images",
    None,
    "the first so many images (default: all; 500 for --checklist)",
    lower_bound=1,
)
_PRECISION = flags.DEFINE_float(
    "precision",
    None,
    "points: estimate autoattack from a sample of the images, with a 95 % "
    "interval of half this width, as 1; 70 of the images that stand after its "
    "first attack are attacked at least (default: all images)",
)
_SHARD = flags.DEFINE_string(
    "shard",
    None,
    "3/16: every sixteenth image, from image 3 on (the first shard is 0/16), "
    "for an array of jobs; atat merge puts the shards together",
)
_BN_EVAL = flags.DEFINE_string(
    "bn_eval",
    "frozen",
    "batch-norm statistics: frozen (stored; the protocol to believe) or batch "
    "(of the attacked batch, as the paper's released evaluation had it)",
)
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "best, last or ema (default: the recipe's, mostly best)"
)
_SPLIT = flags.DEFINE_string(
    "split",
    None,
    "test, or validation: images kept aside in training (default: the "
    "recipe's, mostly test)",
)
_CHECKLIST = flags.DEFINE_bool(
    "checklist",
    False,
    "decide whether the run's robustness can be believed, point by point, and "
    "write checklist.json; exit status 1 if a point fails",
)
_SAVE_ADVERSARIALS = flags.DEFINE_string(
    "save_adversarials",
    None,
    "an .npz file for the adversarial images of one run; every attack is then "
    "run anew",
)

# An interval of this half-width says nothing.
_MOST_POINTS = 50

_NOT_IN_CHECK = (
    _ATTACKS,
    _SAVE_ADVERSARIALS,
    _SPLIT,
    _PRECISION,
    _SHARD,
    _BN_EVAL,
)
_OF_CHECK = """Decides whether robustness can be believed, point by point.

atat check --workdir=runs/demo

atat check --model=my.keras --dataset=folder:photos

Prints the points with their figures and thresholds, and writes
WORKDIR/checklist.json. The exit status is 1 if a point fails.
"""


def main(argv):
    del argv
    default = None
    if _given():
        # A served model is a run of its own beside the file's.
        name = f"served_{_MODEL_NAME.value}"
        if _MODEL.value:
            name = pathlib.Path(_MODEL.value).stem
        default = f"runs/evaluated/{name}"
    workdirs = command_line.workdirs(_WORKDIRS.value)
    workdirs = workdirs or [str(command_line.workdir(default))]
    data_dir = command_line.data_dir()
    _refuse_contradictions(workdirs)
    if not _given():
        command_line.expect_runs(workdirs)

    with command_line.quiet_start():
        from atat_tf.data import training_data
        from atat_tf.evaluation.run import Run

    if _given():
        _keep_given(pathlib.Path(workdirs[0]), data_dir)
    for workdir in workdirs:
        _refuse_other_config(Run(workdir).config)
    with training_data.sentences():
        _evaluate(workdirs, data_dir)


def _evaluate(workdirs, data_dir):
    """Runs the checklist or the attacks on each run, and prints it."""
    from atat_tf.evaluation import evaluate_run, printed_table, shards
    from atat_tf.evaluation.checklist import run as checklist
    from atat_tf.runs import config as run_config
    from atat_tf.runs import naming

    if _CHECKLIST.value:
        points = [
            point
            for workdir in workdirs
            for point in checklist.run_checklist(
                workdir,
                _NUM_IMAGES.value,
                _WEIGHTS.value,
                command_line.dataset(),
                data_dir,
                command_line.seed(),
            )
        ]
        if any(point.verdict == "FAIL" for point in points):
            sys.exit(1)
        return
    if _SHARD.value is not None:
        shard = sharding.parsed(_SHARD.value)
        for workdir in workdirs:
            folder = shards.evaluate(
                workdir,
                shard,
                _ATTACKS.value,
                _NUM_IMAGES.value,
                _WEIGHTS.value,
                command_line.dataset(),
                data_dir,
                command_line.seed(),
                _SPLIT.value,
            )
            print(f"{folder} is done; atat merge puts all shards together.")
        return
    named = []
    for workdir in workdirs:
        results = evaluate_run.evaluate_run(
            workdir,
            _ATTACKS.value,
            _NUM_IMAGES.value,
            _BN_EVAL.value,
            _WEIGHTS.value,
            command_line.dataset(),
            data_dir,
            seed=command_line.seed(),
            save_adversarials=_SAVE_ADVERSARIALS.value,
            split=_SPLIT.value,
            precision=_precision(),
        )
        title = naming.called(run_config.read(workdir))
        named.append((title, results))
    printed_table.print_table(named)


def _precision():
    """Returns --precision as a share of the images, or None."""
    return None if _PRECISION.value is None else _PRECISION.value / 100


def _given():
    """Returns whether a model is evaluated that was not trained here."""
    return _MODEL.value or _SERVER.value or _MODEL_NAME.value


def _keep_given(folder, data_dir):
    """Makes the run folder of a model that is evaluated as it is."""
    from ml_collections import ConfigDict

    from atat_tf.evaluation import opening
    from atat_tf.runs import build, checks
    from atat_tf.runs import config as run_config
    from atat_tf.runs import folder as run_folder
    from atat_tf.training import teacher

    server = _SERVER.value and f"{_SERVER.value}/{_MODEL_NAME.value}"
    config = command_line.config(model=_MODEL.value, server=server)
    config.unlock()
    config.defense = ConfigDict({"name": "standard"})
    if _MODEL_RANGE.value:
        config.model_range = command_line.model_range(
            _MODEL_RANGE.value, [_MODEL.value]
        )
    config = run_config.resolve(config)
    kept = run_config.teacher_config(config)
    checks.expect_same_config(folder, kept)
    if (folder / "config.json").exists():
        return
    opening.expect_settings(config, _ATTACKS.value, _NUM_IMAGES.value)
    dataset = build.load_dataset(config, data_dir)
    # Refused before a folder is made.
    build.build_judged(config, dataset.spec)
    if _MODEL.value:
        teacher.write_teacher(config, folder, dataset, called="model")
        return
    run_folder.create(folder)
    run_folder.write_json(folder / run_folder.CONFIG, run_config.to_dict(kept))


def _refuse_contradictions(workdirs):
    """Raises InputError for flags that do not go together."""
    expect(
        not (_MODEL.value and _SERVER.value),
        "one of --model and --server",
        model=_MODEL.value,
        server=_SERVER.value,
    )
    expect(
        bool(_SERVER.value) == bool(_MODEL_NAME.value),
        "--server=HOST:PORT and --model_name=NAME together",
        server=_SERVER.value,
        model_name=_MODEL_NAME.value,
    )
    expect(
        not _given() or len(workdirs) == 1,
        "one --workdir with --model or --server",
        workdirs=",".join(workdirs),
    )
    expect(
        not _given() or command_line.dataset(),
        "--dataset with --model or --server",
        dataset=command_line.dataset(),
    )
    command_line.model_range(_MODEL_RANGE.value, [_MODEL.value])
    expect(
        _SAVE_ADVERSARIALS.value is None or len(workdirs) == 1,
        "one --workdir with --save_adversarials",
        workdirs=",".join(workdirs),
    )
    if _SHARD.value is not None:
        sharding.parsed(_SHARD.value)
    expect(
        _PRECISION.value is None or 0 < _PRECISION.value < _MOST_POINTS,
        f"--precision above 0 and below {_MOST_POINTS}, in points (1 is a "
        "hundredth of the images)",
        precision=_PRECISION.value,
    )
    expect(
        _PRECISION.value is None or _SAVE_ADVERSARIALS.value is None,
        "--save_adversarials without --precision: a sample is attacked",
        precision=_PRECISION.value,
    )
    for flag, why in (
        (_PRECISION, "its sample is drawn once all images met one attack"),
        (_SAVE_ADVERSARIALS, "a shard has some images alone"),
        (_MODEL, "evaluate --model --attacks=clean makes the run once, before"),
    ):
        expect(
            _SHARD.value is None or flag.value is None,
            f"--shard without --{flag.name}: {why}",
            shard=_SHARD.value,
        )
    expect(
        _SHARD.value is None or _BN_EVAL.value == "frozen",
        "--shard with bn_eval=frozen: statistics of a batch are not a shard's",
        bn_eval=_BN_EVAL.value,
    )
    if not _CHECKLIST.value:
        return
    for flag in _NOT_IN_CHECK:
        expect(
            flag.value == flag.default,
            f"no --{flag.name} for a checklist: it has attacks of its own, and "
            "judges each image on its own",
            **{flag.name: flag.value},
        )


def _refuse_other_config(config):
    """A run is rebuilt from its own config; a flag may only agree with it."""
    if _given():
        return  # the config was made from the flags
    from atat_tf.runs import config as run_config

    there = run_config.to_dict(config)
    if parsing.recipe_given():
        here = run_config.to_dict(run_config.resolve(command_line.config()))
    else:
        # As config.json has them: lists, and no tuples.
        here = json.loads(json.dumps(command_line.overrides()))
        there = dict(recipes.flat(there))
        there = {name: there.get(name) for name in here}
    differing = run_config.differences(here, there)
    if differing:
        raise InputError(
            "Expected no --config, or the run's own: it is rebuilt from its "
            f"config.json. Received: {'; '.join(differing)}."
        )


if __name__ == "__main__":
    if "--checklist" in sys.argv:
        __doc__ = _OF_CHECK
        flags.FLAGS["num_images"].help = "the first so many (default: 500)"
        left_out = [flag.name for flag in (*_NOT_IN_CHECK, _CHECKLIST)]
        command_line.run(main, unlisted=left_out, resumes=True)
    command_line.run(main, resumes=True)
