"""What a GPU compiles by XLA gives what the plain graph gives, on the CPU.

Tiny sizes: XLA for CPUs is slow in loops. An attack or a defense joins by being
registered.
"""

import inspect
import os
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tf_config

from atat_tf.attacks import columns, for_training, linf, on_attention
from atat_tf.data import datasets
from atat_tf.defenses import atat
from atat_tf.errors import InputError
from atat_tf.evaluation import accuracy, attacker
from atat_tf.evaluation.attention import views
from atat_tf.models import compilation
from atat_tf.training import trainer
from tests.support import runs, toys

_EPSILON = 8 / 255
# Sums are in another order, and an attack's steps follow signs.
_TOLERANCE = {"rtol": 2e-3, "atol": 2e-4}
_QUICK = "standard", "at"

_ATTACKS = {
    "pgd": lambda: linf.pgd(_EPSILON, _EPSILON / 2, 2),
    **{
        name: (lambda factory=factory: _of_training(factory))
        for name, factory in for_training.TRAINING_ATTACKS.items()
    },
}


@pytest.fixture(autouse=True)
def compiled():
    """Keras does not compile where a training has asked for determinism."""
    was_on = tf_config.is_op_determinism_enabled()
    tf_config.disable_op_determinism()
    yield
    if was_on:
        tf_config.enable_op_determinism()


def _of_training(factory):
    values = {"epsilon": _EPSILON, "step_size": _EPSILON / 2, "num_steps": 2}
    fields = inspect.signature(factory).parameters
    return factory(**{n: v for n, v in values.items() if n in fields})


def _defense(name):
    kind = atat.DEFENSES[name]
    fields = inspect.signature(kind).parameters
    return kind(**({"layers": "features"} if "layers" in fields else {}))


def _stepped(monkeypatch, by_xla, defense, attack, **settings):
    """Returns the figures and the weights after a step."""
    monkeypatch.setenv(compilation.VARIABLE, str(int(by_xla)))
    keras.utils.set_random_seed(0)
    student, teacher = toys.small_classifier(1), toys.small_classifier(2)
    optimizer = keras.optimizers.SGD(
        0.1, gradient_accumulation_steps=settings.pop("accumulation", None)
    )
    built = trainer.AdversarialTrainer(
        student, defense, attack, teacher, **settings
    )
    built.compile(optimizer)
    # Keras has no XLA where ops are deterministic, as trainings on CPUs make
    # them for the rest of a process.
    built.jit_compile = by_xla
    built.make_train_function()
    images = tf.constant(toys.random_images(4))
    batch = images, tf.constant(toys.random_labels(4))
    for _ in range(optimizer.gradient_accumulation_steps or 1):
        figures = built.train_function(iter([batch]))
    return (
        {name: float(value) for name, value in figures.items()},
        student.get_weights(),
    )


def _assert_same(monkeypatch, *arguments, **settings):
    plain, weights = _stepped(monkeypatch, False, *arguments, **settings)
    compiled, others = _stepped(monkeypatch, True, *arguments, **settings)
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        np.testing.assert_allclose(compiled[name], value, **_TOLERANCE)
    for mine, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(other, mine, **_TOLERANCE)


def _with_marks(names):
    """Returns the names, all but the quick ones marked as long."""
    return [
        name if name in _QUICK else pytest.param(name, marks=pytest.mark.long)
        for name in names
    ]


@pytest.mark.parametrize("name", _with_marks(atat.DEFENSES))
def test_a_step_of_every_defense(monkeypatch, name):
    defense = _defense(name)
    attack = None
    if defense.needs_attack:
        attack = _ATTACKS["trades" if name == "trades" else "pgd"]()
    _assert_same(monkeypatch, defense, attack)


@pytest.mark.long
@pytest.mark.parametrize("name", [*for_training.TRAINING_ATTACKS])
def test_a_step_under_every_training_attack(monkeypatch, name):
    defense = _defense("trades" if name == "trades" else "at")
    _assert_same(monkeypatch, defense, _ATTACKS[name]())


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [{"accumulation": 2}, {"weight_perturbation": 0.01}],
    ids=str,
)
def test_a_step_with_more_in_it(monkeypatch, settings):
    _assert_same(
        monkeypatch, _defense("at"), _ATTACKS["pgd"](), **dict(settings)
    )


def _suites():
    names = (*linf.ATTACKS, *columns.PARTS)
    in_l2 = [f"{name}5_l2" for name in columns.PARTS if name != "fab_t"]
    in_linf = [
        name if name in ("fgsm", "clean") else f"{name}5" for name in names
    ]
    return [*in_linf, *in_l2]


@pytest.mark.long
@pytest.mark.parametrize("name", _suites())
def test_every_attack_in_steps(monkeypatch, name):
    """Verdicts are equal but for images at the very edge."""
    radius = (1 if "l2" not in name else 12) / 255
    attack = columns.column(name, radius, radius / 2, toys.NUM_CLASSES)[-1]
    _assert_same_verdicts(monkeypatch, toys.small_classifier(), attack)


@pytest.mark.long
def test_the_attack_on_attention(monkeypatch):
    classifier = toys.small_classifier()
    maps = on_attention.logits_and_maps_function(classifier, ["features"])
    attack = on_attention.AttentionAttack(1 / 255, 0.5 / 255, 5, 1.0, maps)
    _assert_same_verdicts(monkeypatch, classifier, attack)


def _assert_same_verdicts(monkeypatch, classifier, attack):
    images = toys.random_bytes(20)
    logits = classifier(images / np.float32(255), training=False).numpy()
    labels = logits.argmax(-1).astype(np.int32)
    outcomes = []
    for by_xla in ("0", "1"):
        monkeypatch.setenv(compilation.VARIABLE, by_xla)
        runner = attacker.Attacker(classifier, 8)
        outcomes.append(runner.run(attack, images, labels, np.arange(20), 0))
    plain, compiled = outcomes
    assert (plain.broken != compiled.broken).sum() <= 1
    same = plain.broken == compiled.broken
    np.testing.assert_allclose(
        plain.margin[same], compiled.margin[same], rtol=0.05, atol=0.02
    )


@pytest.mark.long
def test_validation_and_attention(monkeypatch):
    classifier = toys.small_classifier()
    split = datasets.Split(
        toys.random_bytes(12), np.asarray(toys.random_labels(12))
    )
    images, found = split.images / np.float32(255), []
    for by_xla in ("0", "1"):
        monkeypatch.setenv(compilation.VARIABLE, by_xla)
        attacks = {"clean": None, "pgd": _ATTACKS["pgd"]()}
        evaluator = accuracy.Evaluator(classifier, attacks)
        viewer = views.Viewer(classifier, "features")
        attack = _ATTACKS["pgd"](), images, split.labels
        seen = viewer.attended(*attack)
        (at_half,) = viewer.attacked_at(*attack, [_EPSILON / 2], np.arange(12))
        found.append(
            (
                *(evaluator.correct(name, split, 6) for name in attacks),
                seen.clean.maps,
                seen.attacked.maps,
                at_half.maps,
            )
        )
    for plain, compiled in zip(*found, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=0.02, atol=2e-3)


def _attacked_by_xla():
    """Attacks images whose brightness is the class, the next one a level on.

    So that they break one after the other, and batches of many sizes are left.
    """
    inputs = keras.Input((4, 4, 1))
    head = keras.layers.Dense(2)
    logits = head(keras.layers.GlobalAveragePooling2D()(inputs))
    head.set_weights([np.array([[-1.0, 1.0]]), np.array([0.5, -0.5])])
    runner = attacker.Attacker(keras.Model(inputs, logits), 16)
    attack = linf.Steps(linf.pgd(24 / 255, 2 / 255, 10))
    for count in (40, 33, 37):
        levels = 129 + np.arange(count, dtype=np.uint8)
        images = np.tile(levels[:, None, None, None], (1, 4, 4, 1))
        labels = np.ones(count, np.int32)
        outcome = runner.run(attack, images, labels, np.arange(count), 0)
        assert len(np.unique(outcome.broke_at)) > 5


@pytest.mark.long
def test_compaction_has_few_sizes_compiled(tmp_path):
    """XLA compiles for each number of rows that it sees: powers of two."""
    code = f"from {__name__} import _attacked_by_xla as go; go()"
    flags = f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text"
    status, output = runs.finish(
        [sys.executable, "-c", code],
        env={**os.environ, compilation.VARIABLE: "1", "XLA_FLAGS": flags},
    )
    assert status == 0, output
    for function in ("start", "_lambda_"):
        compiled = list(tmp_path.glob(f"*_{function}_*before_optimizations*"))
        assert 1 <= len(compiled) <= len((1, 2, 4, 8, 16)), compiled


def test_another_value_is_refused(monkeypatch):
    monkeypatch.setenv(compilation.VARIABLE, "yes")
    with pytest.raises(InputError, match="ATAT_XLA as 0 or 1"):
        compilation.by_xla()


def test_a_later_batch_that_does_not_fit_is_refused():
    """XLA leaves assertions out; the batch trains nothing, and is told."""
    built = trainer.AdversarialTrainer(
        toys.small_classifier(norm=False), _defense("standard")
    )
    built.compile("sgd")
    built.jit_compile = True
    images, labels = toys.random_images(8).numpy(), np.arange(8) % 5
    before = built.student.get_weights()
    images[4:] *= 255
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    with pytest.raises(InputError, match="in every batch.*other_batches=1"):
        built.evaluate(batches, verbose=0)
    nan = np.full(4, np.nan, np.float32)
    for wrong in (
        (images[4:], labels[4:]),
        (images[:4], labels[:4], nan),
    ):
        with pytest.raises(InputError, match="pixels from 0 to 1.*batches=1"):
            twice = (batch for batch in (wrong, wrong))
            built.fit(twice, steps_per_epoch=1, verbose=0)
    for old, new in zip(before, built.student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
