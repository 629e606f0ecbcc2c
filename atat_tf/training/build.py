"""From a config to the compiled trainer, its optimizer and its strategy."""

import keras
import ml_collections
import tensorflow as tf

from atat_tf.errors import expect
from atat_tf.runs import build
from atat_tf.training import trainer


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises linearly from 0 to its peak and falls linearly to 0.

    Args:
      peak: the highest rate.
      peak_step: the step at which it is reached.
      num_steps: of the whole training.
    """

    def __init__(self, peak: float, peak_step: float, num_steps: int):
        super().__init__()
        self._fields = {
            "peak": peak,
            "peak_step": peak_step,
            "num_steps": num_steps,
        }

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        peak, peak_step, num_steps = self._fields.values()
        step = tf.cast(step, keras.config.floatx())
        up = step / peak_step
        down = (num_steps - step) / (num_steps - peak_step)
        return peak * tf.maximum(tf.minimum(up, down), 0.0)

    def get_config(self) -> dict[str, float]:
        return self._fields


def build_optimizer(
    config: ml_collections.ConfigDict, steps_per_epoch: int
) -> keras.optimizers.SGD:
    """Returns SGD with momentum and the config's schedule.

    Args:
      config: a run's.
      steps_per_epoch: updates of an epoch.
    """
    section = config.optimizer
    # Keras asks a schedule for the rate by the parts of batches.
    parts = config.gradient_accumulation_steps or 1
    total = config.num_epochs * steps_per_epoch * parts
    if section.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            section.learning_rate, total
        )
    elif section.schedule == "one_cycle":
        rate = OneCycle(section.learning_rate, section.peak_at * total, total)
    else:
        boundaries = [round(share * total) for share in section.decay_at]
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            boundaries,
            [
                section.learning_rate * section.decay_factor**drops
                for drops in range(len(boundaries) + 1)
            ],
        )
    return keras.optimizers.SGD(
        rate,
        momentum=section.momentum,
        use_ema=section.ema > 0,
        ema_momentum=section.ema,
        gradient_accumulation_steps=config.gradient_accumulation_steps or None,
    )


def build_trainer(
    config: ml_collections.ConfigDict,
    student: keras.Model,
    teacher: keras.Model | None,
    steps_per_epoch: int,
) -> trainer.AdversarialTrainer:
    """Returns the compiled trainer; call it inside the strategy's scope."""
    defense = build.build_defense(config)
    section = config.optimizer
    averages_statistics = section.ema_statistics == "averaged"
    parts = config.gradient_accumulation_steps or 1
    attack = build.build_attack(config) if defense.needs_attack else None
    built = trainer.AdversarialTrainer(
        student,
        defense,
        attack,
        teacher if defense.needs_teacher else None,
        seed=config.seed,
        num_steps=config.num_epochs * steps_per_epoch * parts,
        statistics_momentum=section.ema if averages_statistics else 0.0,
        weight_perturbation=config.weight_perturbation,
        teacher_momentum=config.teacher_momentum,
    )
    built.compile(build_optimizer(config, steps_per_epoch))
    return built


def build_strategy(
    num_devices: int | None = None, on_one_device: bool = False
) -> tf.distribute.Strategy:
    """Returns a strategy over all visible GPUs, or over N logical CPUs.

    Args:
      num_devices: how many; None for all GPUs, or the one CPU.
      on_one_device: whether the step writes weights, the student's or the
        teacher's, or adds gradients up over several steps, which a
        MirroredStrategy of one device cannot do.

    Raises:
      InputError: fewer GPUs than asked for.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and num_devices is not None and num_devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices
        )
    kind = "GPU" if gpus else "CPU"
    available = len(gpus) if gpus else max(num_devices or 1, 1)
    count = available if num_devices is None else num_devices
    expect(
        1 <= count <= available,
        f"num_devices from 1 to {available}, the {kind}s there are",
        num_devices=num_devices,
    )
    if on_one_device and count == 1:
        return tf.distribute.OneDeviceStrategy(f"{kind}:0")
    return tf.distribute.MirroredStrategy(
        [f"{kind}:{number}" for number in range(count)]
    )
