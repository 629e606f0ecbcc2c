"""The final of the screening's size: the variants that go on, and controls.

    python -m atat_tf.reproduce --table=final --scale=final --seeds=3 \
        --workdir=results --data_dir=../shared/tfds

A variant is one of configs/ours.py, trained for as long as costs what six
epochs of ATAT and its teacher do: 72 forward passes of an image. Its section
of docs/results.md was written before any of it was run.
"""

from . import ours

# AT from the teacher's weights: 6 · 3 + 11 · 5 = 73 passes; ALP: 6 · 3 + 7 · 8
# = 74, for λ1 = 0 calls a teacher here that ALP has not. TRADES, with its own
# attack of seven steps, takes 144.
_EPOCHS = {"control_at": 11, "pairing_only": 7}
VARIANTS = (
    "standard",
    "control_at",
    "control_trades",
    "pairing_only",
    "as_written",
    "mse",
)


def get_config(variant="mse"):
    if variant not in VARIANTS:
        raise ValueError(
            f"Expected a variant among {', '.join(VARIANTS)}. "
            f"Received: {variant!r}."
        )
    config = ours.get_config(variant)
    config.unlock()
    config.num_epochs = _EPOCHS.get(variant, config.num_epochs)
    config.num_validation = 1000
    # Each seed has its own, which `reproduce` names.
    config.teacher = ""
    config.evaluation.split = "test"
    config.evaluation.attacks = ("clean",)
    return config.lock()
