"""Functions and classes of a plugin are told apart, and known again."""

import functools
import types

import pytest
import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import columns, linf, plugins
from atat_tf.errors import InputError

_PLUGIN = """
import functools
import math
import tensorflow as tf
from atat_tf import losses
from atat_tf.attacks import linf

FACTOR = 1.0

def helper(labels, logits):
    return FACTOR * losses.cross_entropy(labels, logits)

def loss(labels, logits):
    return helper(labels, logits) if math.pi in {3, "a", "b"} else logits[:, 0]

def bounded(bound):
    def loss(labels, logits):
        return tf.minimum(losses.cross_entropy(labels, logits), bound)
    return loss

def table(values):
    def loss(labels, logits):
        return tf.linalg.matvec(tf.gather(values, labels), logits)
    return loss

class Loss:
    def __init__(self, bound):
        self.bound = bound

    def __call__(self, labels, logits):
        return bounded(self.bound)(labels, logits)

    def method(self, labels, logits):
        return self(labels, logits)

@tf.function
def traced(labels, logits):
    return helper(labels, logits)

@functools.wraps(losses.cross_entropy)
def decorated(labels, logits):
    return -losses.cross_entropy(labels, logits)

class LinfAttack(linf.LinfAttack):
    def next_point(self, *given):
        return super().next_point(*given)

GIVEN = {
    "function": loss,
    "lambda": lambda labels, logits: losses.cross_entropy(labels, logits),
    "another lambda": lambda y, logits: -losses.cross_entropy(y, logits),
    "cell": bounded(50.0),
    "another cell": bounded(50.0001),
    # Of a number of classes at which no loss is asked.
    "array": table(tf.eye(37)),
    "another array": table(2 * tf.eye(37)),
    "object": Loss(50.0),
    "another object": Loss(50.0001),
    "method": Loss(50.0).method,
    "another method": Loss(50.0001).method,
    "partial": functools.partial(helper),
    "another partial": functools.partial(losses.cross_entropy),
    "traced": traced,
    "decorated": decorated,
    "class": LinfAttack,
}
"""


@functools.cache
def _names(text, number=0):
    """Returns {kind: name} of a plugin with this text, imported once more."""
    module = {"__name__": "plugin"}
    exec(compile(text, f"plugin{number}.py", "exec"), module)
    return {kind: plugins.name(of) for kind, of in module["GIVEN"].items()}


def test_no_two_share_a_name():
    names = _names(_PLUGIN)
    assert all("#" in name for name in names.values())
    assert len({*names.values()}) == len(names)


def test_a_plugin_that_is_imported_again_has_its_names():
    assert _names(_PLUGIN) == _names(_PLUGIN, 1)
    # Lines are of no account.
    assert _names(_PLUGIN) == _names("\n" + _PLUGIN)


@pytest.mark.parametrize(
    "text, other, kinds",
    [
        ("FACTOR = 1.0", "FACTOR = 1.0001", {"function", "partial", "traced"}),
        ("return -losses", "return -2 * losses", {"decorated"}),
        ("return self(lab", "return -self(lab", {"method", "another method"}),
        ("return super()", "return linf.LinfAttack", {"class"}),
    ],
)
def test_a_changed_body_has_another_name(text, other, kinds):
    assert text in _PLUGIN
    names, changed = _names(_PLUGIN), _names(_PLUGIN.replace(text, other))
    assert kinds <= {kind for kind in names if names[kind] != changed[kind]}


def test_what_code_does_not_say_is_asked():
    """As of a function in another module that the plugin imports."""

    def name(sign):
        module = types.ModuleType("other")
        module.sign = sign
        return plugins.name(
            lambda labels, logits: (
                module.sign * losses.cross_entropy(labels, logits)
            )
        )

    assert name(1.0) == name(1.0) != name(-1.0)


def test_functions_of_the_package_have_their_names_alone():
    attack = linf.LinfAttack(0.1, 0.1, 1, loss_fn=losses.kl_divergence)
    assert columns.description(attack) == (
        "LinfAttack(epsilon=25.5/255, step_size=25.5/255, num_steps=1, "
        "random_start=True, restarts=1, bounds=(0.0, 1.0), "
        "loss_fn=kl_divergence)"
    )


def test_a_loss_that_is_never_the_same_is_refused():
    with pytest.raises(InputError, match="answer the same at each call.*draws"):

        def draws(labels, logits):
            return tf.random.normal([len(labels)])

        plugins.name(draws)
