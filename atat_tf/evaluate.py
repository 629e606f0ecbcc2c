"""Measures a trained run's accuracy under attack and writes results.json.

python -m atat_tf.evaluate --workdir=runs/demo/teacher,runs/demo

python -m atat_tf.evaluate --workdir=runs/demo --attacks=clean,pgd20x10
"""

from absl import flags

from atat_tf import command_line
from atat_tf.errors import InputError

flags.adopt_module_key_flags(command_line)
_ATTACKS = flags.DEFINE_list(
    "attacks",
    None,
    "columns: clean, fgsm, ifgsm<steps>, pgd<steps>, pgd<steps>x<restarts> "
    "(default: those of the paper's table for the data set)",
)
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", None, "the first so many test images (default: all)"
)
_BN_EVAL = flags.DEFINE_string(
    "bn_eval",
    "frozen",
    "batch-norm statistics: frozen (stored; the protocol to believe) or batch "
    "(of the attacked batch, as the paper's released evaluation had it)",
)
_WEIGHTS = flags.DEFINE_string("weights", "best", "best, last or ema")


def main(argv):
    del argv
    workdirs = str(command_line.workdir()).split(",")
    data_dir = command_line.data_dir()

    with command_line.quiet_start():
        from atat_tf import evaluation

    for workdir in workdirs:
        _refuse_other_config(evaluation.load_config(workdir))
    results = [
        evaluation.evaluate_run(
            workdir,
            _ATTACKS.value,
            _NUM_IMAGES.value,
            _BN_EVAL.value,
            _WEIGHTS.value,
            command_line.dataset(),
            data_dir,
            seed=command_line.seed(),
        )
        for workdir in workdirs
    ]
    evaluation.print_table(results)


def _refuse_other_config(config):
    """A run is rebuilt from its own config; a flag may only agree with it."""
    from atat_tf import evaluation, experiment

    there = experiment.to_dict(config)
    if command_line.recipe_given():
        here = experiment.to_dict(experiment.resolve(command_line.config()))
    else:
        here, there = command_line.overrides(), _flat(there)
        there = {name: there.get(name) for name in here}
    differing = evaluation.differences(here, there)
    if differing:
        raise InputError(
            "Expected no --config, or the run's own: it is rebuilt from its "
            f"config.json. Received: {'; '.join(differing)}."
        )


def _flat(values, prefix=""):
    flat = {}
    for name, value in values.items():
        flat[prefix + name] = value
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
    return flat


if __name__ == "__main__":
    command_line.run(main)
