"""What every attack must have: ball and box, batch, seeds, passes, numbers.

An attack joins by being registered: in `linf.ATTACKS`, in `for_training`'s
TRAINING_ATTACKS, in `columns.PARTS`, or as a class of `atat_tf.attacks` with
`start` and `step`, which is built from the fields in `_arguments`.
"""

import dataclasses
import functools
import importlib
import inspect
import pkgutil

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from atat_tf import attacks as package
from atat_tf import losses
from atat_tf.attacks import columns, fab, for_training, linf, stepped
from atat_tf.errors import InputError
from tests.support import toys

_RADII = {"linf": 0.02, "l2": 0.3}
_EPSILON = _RADII["linf"]
_STEPS, _IMAGES, _CLASSES = 5, 8, 5
# They start at the image itself and read no seed.
_DETERMINISTIC = ("fgsm", "ifgsm", "column_fab_t", "column_ifgsm")


def _curved_logits():
    """Returns the logits of a random network of one hidden layer of tanh."""
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(*toys.IMAGE_SHAPE, 20)) / 4
    last = tf.constant(generator.normal(size=(20, _CLASSES)), tf.float32)
    features = toys.linear_logits(hidden)
    return lambda images: tf.tanh(features(images - 0.5)) @ last


def _arguments(logits_fn):
    """Returns a value for each field that an attack may require."""
    return {
        "epsilon": _EPSILON,
        "step_size": _EPSILON / 2,
        "num_steps": _STEPS,
        "weight": 1.0,
        "source": logits_fn,
        "logits_and_maps": lambda images, _: (
            logits_fn(images),
            {"map": 0.5 + 0.5 * tf.sin(9.0 * images[..., 0])},
        ),
    }


def _built(factory, logits_fn):
    parameters = inspect.signature(factory).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty]
    arguments = _arguments(logits_fn)
    return factory(**{n: arguments[n] for n in required})


def _classes_in_steps():
    """Returns the classes of `atat_tf.attacks` with `start` and `step`."""
    found = []
    for module in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{module.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__ and hasattr(kind, "step"):
                found.append(kind)
    return found


def _suites():
    """Returns {name: attack}, the last attack of every column."""
    known, kinds_in_l2 = {}, set()
    for name in (*columns.PARTS, "ifgsm", "pgd2x"):
        for norm, suffix in (("linf", ""), ("l2", "_l2")):
            column = f"{name}{_STEPS}{suffix}@{_RADII[norm]}"
            try:
                *_, last = columns.column(column, 1, _EPSILON / 2, _CLASSES)
            except InputError:  # only in ℓ∞
                continue
            if norm == "l2" and type(last) in kinds_in_l2:
                continue
            kinds_in_l2 |= {type(last)} if norm == "l2" else set()
            known[f"column_{name}{suffix}"] = last
    return known


class _OneCall:
    """An attack that is called once, as an attack of one step."""

    num_steps, norm = 1, "linf"

    def __init__(self, attack):
        self.attack, self.epsilon = attack, attack.epsilon
        if isinstance(attack, for_training.NoiseFGSM):
            # Its noise is not projected back into the ball.
            self.epsilon = attack.noise * attack.epsilon + attack.step_size

    def start(self, logits_fn, images, labels, seeds):
        return {
            "images": images,
            "labels": labels,
            "seeds": seeds,
            "adversarial": images,
        }

    def step(self, logits_fn, state, index):
        adversarial = self.attack(
            logits_fn, state["images"], state["labels"], state["seeds"]
        )
        return {**state, "adversarial": adversarial}


def _replaced(attack, **fields):
    """Returns an attack with other fields, also inside what wraps it."""
    inner = getattr(attack, "attack", None)
    if inner is None:
        return dataclasses.replace(attack, **fields)
    return type(attack)(dataclasses.replace(inner, **fields))


def _every_attack(logits_fn):
    """Returns {name: attack in steps}."""
    known = {}
    for name, factory in linf.ATTACKS.items():
        known[name] = _OneCall(_built(factory, logits_fn))
    known["pgd_restarts"] = _OneCall(linf.pgd(_EPSILON, 0.01, 3, restarts=2))
    for name, factory in for_training.TRAINING_ATTACKS.items():
        if factory is not linf.LinfAttack:
            known[f"training_{name}"] = _OneCall(_built(factory, logits_fn))
    known.update(_suites())
    kinds = {type(attack) for attack in known.values()}
    for kind in _classes_in_steps():
        if kind not in kinds:
            known[kind.__name__.lower()] = _built(kind, logits_fn)
    known["fab_restarted"] = fab.FAB(_EPSILON, _STEPS, restart=1)
    return known


_LOGITS = _curved_logits()
_ATTACKS = _every_attack(_LOGITS)
_every = parameterized.named_parameters(*((n, n) for n in _ATTACKS))


@functools.cache
def _compiled(name):
    """Returns start and step of an attack, traced once for any batch."""
    attack = _ATTACKS[name]

    @tf.function(
        input_signature=(
            tf.TensorSpec([None, *toys.IMAGE_SHAPE], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, 2], tf.int64),
        )
    )
    def start(images, labels, seeds):
        return attack.start(_LOGITS, images, labels, seeds)

    @tf.function(reduce_retracing=True)
    def step(state, index):
        return attack.step(_LOGITS, state, index)

    return start, step


def _data(count=_IMAGES):
    """Returns images, some of them black and white, and their labels."""
    images = toys.random_images(count)
    # Black and white pixels are where the box cuts the ball.
    half = count // 2
    images = tf.concat([tf.round(images[:half]), images[half:]], 0)
    return images, tf.argmax(_LOGITS(images), -1, tf.int32)


def _last(attack, logits_fn, images, labels, seeds):
    """Returns the last state, run eagerly."""
    state = attack.start(logits_fn, images, labels, seeds)
    for index in range(attack.num_steps):
        state = attack.step(logits_fn, state, tf.constant(index))
    return state


def _distances(points, images, norm):
    moved = np.reshape(points - images, [len(images), -1]).astype(np.float64)
    return np.linalg.norm(moved, np.inf if norm == "linf" else 2, axis=1)


class PropertiesTest(parameterized.TestCase, tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.images, self.labels = _data()

    def _states(self, name, seed=0):
        """Yields the state after the start and after every step."""
        start, step = _compiled(name)
        state = start(self.images, self.labels, toys.seeds(_IMAGES, seed))
        yield state
        for index in range(_ATTACKS[name].num_steps):
            state = step(state, tf.constant(index))
            yield state

    def _expect_inside(self, attack, state, bounds=(0.0, 1.0)):
        norm = getattr(attack, "norm", "linf")
        rows = ("adversarial", "best", "point")
        for row in [row for row in rows if row in state]:
            points = state[row].numpy()
            self.assertEqual(points.dtype, np.float32)
            self.assertAllInRange(points, *bounds)
            # FAB's path is the only one outside the ball.
            if row == "adversarial" or "closest" not in state:
                away = _distances(points, state["images"].numpy(), norm)
                self.assertAllInRange(away, 0.0, attack.epsilon + 1e-6)

    @_every
    def test_inside_ball_and_box_after_every_step(self, name):
        attack = _ATTACKS[name]
        for state in self._states(name):
            self._expect_inside(attack, state)
        moved = np.abs(state["adversarial"] - self.images)
        self.assertGreater(np.max(moved), 1e-3)
        if "margin" not in state:
            before = losses.cross_entropy(self.labels, _LOGITS(self.images))
            after = losses.cross_entropy(
                self.labels, _LOGITS(state["adversarial"])
            )
            self.assertGreater(np.mean(after), np.mean(before))

    @_every
    def test_a_verdict_is_that_of_its_candidate_and_stays(self, name):
        before, *states = self._states(name)
        if "margin" not in before:
            self.skipTest("gives images, no verdicts")
        for index, state in enumerate(states):
            margin = losses.margin(self.labels, _LOGITS(state["adversarial"]))
            self.assertAllClose(margin, state["margin"], 1e-4, 1e-5)
            self.assertAllLessEqual(state["margin"] - before["margin"], 1e-6)
            was_broken = before["broke_at"].numpy() != stepped.NEVER
            is_broken = state["broke_at"].numpy() != stepped.NEVER
            self.assertAllEqual(is_broken, state["margin"].numpy() < 0)
            # A step may find out that where it starts from is wrong, too.
            newly = is_broken & ~was_broken
            self.assertAllInSet(
                state["broke_at"].numpy()[newly], {index, index + 1}
            )
            for row in ("adversarial", "broke_at"):
                self.assertAllEqual(
                    state[row].numpy()[was_broken],
                    before[row].numpy()[was_broken],
                )
            before = state

    @_every
    def test_alone_and_joined_between_steps_as_in_one_batch(self, name):
        start, step = _compiled(name)
        *_, whole = self._states(name)
        num_steps = _ATTACKS[name].num_steps
        parts = []
        for rows in ([3], [0, 1, 2], [7, 4, 6, 5]):
            state = start(
                tf.gather(self.images, rows),
                tf.gather(self.labels, rows),
                tf.gather(toys.seeds(_IMAGES), rows),
            )
            for index in range(num_steps // 2):
                state = step(state, tf.constant(index))
            parts.append(state)
        joined = {
            row: tf.concat([part[row] for part in parts], 0) for row in parts[0]
        }
        for index in range(num_steps // 2, num_steps):
            joined = step(joined, tf.constant(index))
        self.assertCountEqual(joined, whole)
        for row, values in joined.items():
            expected = tf.gather(whole[row], [3, 0, 1, 2, 7, 4, 6, 5])
            self.assertAllClose(values, expected, 1e-4, 1e-4, row)

    @_every
    def test_the_seed_decides(self, name):
        runs = [
            [state["adversarial"].numpy() for state in self._states(name, seed)]
            for seed in (0, 0, 1)
        ]
        first, again, other = map(np.stack, runs)
        self.assertAllEqual(first, again)
        if name in _DETERMINISTIC:
            self.assertAllEqual(first, other)
        else:
            self.assertNotAllEqual(first, other)

    @_every
    def test_neighbours_have_starts_of_their_own(self, name):
        if name in _DETERMINISTIC:
            self.skipTest("starts at the image")
        self.images = tf.repeat(self.images[-1:], _IMAGES, 0)
        self.labels = tf.repeat(self.labels[-1:], _IMAGES, 0)
        _, first, *_ = self._states(name)
        points = first.get("point", first["adversarial"]).numpy()
        # Some may end in one corner, all of them will not.
        self.assertGreater(len({point.tobytes() for point in points}), 2)

    @_every
    def test_compiled_equals_eager(self, name):
        *_, compiled = self._states(name)
        eager = _last(
            _ATTACKS[name],
            _LOGITS,
            self.images,
            self.labels,
            toys.seeds(_IMAGES),
        )
        self.assertCountEqual(eager, compiled)
        for row, values in eager.items():
            self.assertAllClose(values, compiled[row], 1e-4, 1e-4, row)

    @_every
    def test_a_tiny_radius_leaves_the_image(self, name):
        attack = _replaced(_ATTACKS[name], epsilon=1e-8)
        if hasattr(getattr(attack, "attack", attack), "step_size"):
            attack = _replaced(attack, step_size=1e-8)
        state = _last(
            attack, _LOGITS, self.images, self.labels, toys.seeds(_IMAGES)
        )
        self.assertAllClose(state["adversarial"], self.images, 0, 1e-6)

    @_every
    def test_other_shapes_and_bounds(self, name):
        shape, bounds = (2, 9, 1), (-1.0, 2.0)
        weights = np.random.default_rng(0).normal(size=(*shape, _CLASSES))
        logits_fn = toys.linear_logits(weights)
        attack = _replaced(_every_attack(logits_fn)[name], bounds=bounds)
        images = toys.random_images(4, shape)
        images = 3 * tf.concat([tf.round(images[:2]), images[2:]], 0) - 1
        labels = tf.argmax(logits_fn(images), -1, tf.int32)
        state = _last(attack, logits_fn, images, labels, toys.seeds(4))
        self._expect_inside(attack, state, bounds)
        # FAB's path is the point; a candidate is what it has broken.
        points = state.get("point", state["adversarial"])
        self.assertGreater(np.max(np.abs(points - images)), 1e-3)

    @_every
    def test_wrong_settings_are_refused(self, name):
        for field, value, pattern in (
            ("epsilon", 0.0, "epsilon.*epsilon=0.0"),
            ("epsilon", np.inf, "epsilon"),
            ("bounds", (1.0, 0.0), "bounds in ascending"),
            ("num_steps", 0, "num_steps.*num_steps=0"),
        ):
            with self.assertRaisesRegex(InputError, f"Expected {pattern}"):
                _replaced(_ATTACKS[name], **{field: value})

    @_every
    def test_passes_of_a_step_are_as_stated(self, name):
        count = 0

        @tf.custom_gradient
        def logits_fn(images):
            nonlocal count
            count += 1
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(images)
                logits = _LOGITS(images)

            def gradient(upstream):
                nonlocal count
                count += 1
                return tape.gradient(logits, images, upstream)

            return logits, gradient

        attack = _every_attack(logits_fn)[name]
        if isinstance(attack, _OneCall):
            self.skipTest("told by its number of steps")
        state = attack.start(
            logits_fn, self.images, self.labels, toys.seeds(_IMAGES)
        )
        # The image, and what a start of its own costs.
        self.assertBetween(count, 1, 3)
        count = 0
        state = attack.step(logits_fn, state, tf.constant(0))
        self.assertEqual(count, stepped.passes_a_step(attack))
        for index in range(1, attack.num_steps):
            state = attack.step(logits_fn, state, tf.constant(index))
        # PGD and its kin judge the last point of each start by one more.
        restarts = getattr(getattr(attack, "attack", None), "restarts", 1)
        self.assertLessEqual(count, stepped.passes(attack) + restarts)

    @_every
    def test_finite_without_a_usable_gradient(self, name):
        weights = np.random.default_rng(0).normal(
            size=(*toys.IMAGE_SHAPE, _CLASSES)
        )
        linear = toys.linear_logits(weights)
        classifiers = {
            "unread": lambda images: tf.one_hot(
                tf.zeros(tf.shape(images)[0], tf.int32), _CLASSES
            ),
            "tiny": lambda images: 1e-38 * linear(images),
            "overflowing": lambda images: 1e38 * linear(images),
            "not a number": lambda images: linear(images) * np.nan,
        }
        images = self.images[2:6]
        for kind, logits_fn in classifiers.items():
            with self.subTest(kind):
                attack = _every_attack(logits_fn)[name]
                labels = tf.argmax(linear(images), -1, tf.int32)
                state = _last(attack, logits_fn, images, labels, toys.seeds(4))
                self._expect_inside(attack, state)
                for row in ("adversarial", "point", "best", "gradient"):
                    if row in state:
                        self.assertAllInRange(state[row], -3e38, 3e38)
                if kind == "unread" and "broke_at" in state:
                    broken = state["broke_at"].numpy() != stepped.NEVER
                    wrong = losses.margin(labels, logits_fn(images)) < 0
                    self.assertAllEqual(broken, wrong)

    @_every
    def test_the_graph_is_one_loop_without_python(self, name):
        num_calls = 0

        def logits_fn(images):
            nonlocal num_calls
            num_calls += 1
            return _LOGITS(images)

        attack = _replaced(_every_attack(logits_fn)[name], num_steps=50)
        run = toys.steps_of(attack, logits_fn, toys.IMAGE_SHAPE)
        definition = run.get_concrete_function().graph.as_graph_def()
        self.assertBetween(num_calls, 1, 6)
        nodes = list(definition.node)
        for body in definition.library.function:
            nodes.extend(body.node_def)
        self.assertEmpty([n.op for n in nodes if "PyFunc" in n.op])


class CalledTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.named_parameters(
        *((n, a.attack) for n, a in _ATTACKS.items() if isinstance(a, _OneCall))
    )
    def test_is_a_constant_and_moves_no_variable(self, attack):
        classifier = toys.small_classifier()
        images = toys.random_images(4)
        before = toys.values(classifier.variables)
        weights = [v.value for v in classifier.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(images)
            adversarial = attack(
                toys.inference(classifier),
                images,
                toys.random_labels(4),
                toys.seeds(4),
            )
        for gradient in tape.gradient(adversarial, [images, *weights]):
            self.assertIsNone(gradient)
        after = toys.values(classifier.variables)
        for old, new in zip(before, after, strict=True):
            self.assertAllEqual(old, new)


if __name__ == "__main__":
    absltest.main()
