"""Functions and classes of a plugin are told apart, and known again."""

import functools
import importlib.util
import linecache
import sys
import types
from unittest import mock

import pytest
import tensorflow as tf

from atat_tf import losses
from atat_tf.attacks import columns, linf, plugins
from atat_tf.errors import InputError

_PLUGIN = """
import dataclasses
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
    MOMENTUM = 0.9

    def next_point(self, *given):
        return super().next_point(*given)

@dataclasses.dataclass(frozen=True)
class Holder:
    inner: linf.LinfAttack

HELD = Holder(linf.LinfAttack(0.1, 0.02, 3))
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


@pytest.fixture(name="names", scope="module")
def _names(tmp_path_factory):
    """Returns a function of a plugin's text to the names, {kind: name}."""

    @functools.cache
    def names(text, number=0):
        # The files have one path, as of one plugin at several times.
        path = tmp_path_factory.getbasetemp() / "plugin_of_a_test.py"
        path.write_text(text)
        linecache.clearcache()
        spec = importlib.util.spec_from_file_location("plugin", path)
        module = importlib.util.module_from_spec(spec)
        # A class asks there for the file that it is written in.
        with mock.patch.dict(sys.modules, plugin=module):
            exec(compile(text, path, "exec"), vars(module))
            given = {k: plugins.name(of) for k, of in module.GIVEN.items()}
            return given | {"held": columns.description(module.HELD)}

    return names


def test_no_two_share_a_name(names):
    found = names(_PLUGIN)
    assert all("#" in name for name in found.values())
    assert len({*found.values()}) == len(found)


def test_a_plugin_that_is_imported_again_has_its_names(names):
    assert names(_PLUGIN) == names(_PLUGIN, 1)


@pytest.mark.parametrize(
    "text, other, kinds",
    [
        ("FACTOR = 1.0", "FACTOR = 1.0001", {"function", "partial", "traced"}),
        ("return -losses", "return -2 * losses", {"decorated"}),
        ("return self(lab", "return -self(lab", {"method", "another method"}),
        ("return super()", "return linf.LinfAttack", {"class"}),
        ("MOMENTUM = 0.9", "MOMENTUM = 0.5", {"class", "held"}),
        ("LinfAttack(0.1", "LinfAttack(0.2", {"held"}),
    ],
)
def test_a_changed_body_has_another_name(text, other, kinds, names):
    assert text in _PLUGIN
    found, changed = names(_PLUGIN), names(_PLUGIN.replace(text, other))
    assert kinds <= {kind for kind in found if found[kind] != changed[kind]}


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
