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
import pytest
import tensorflow as tf

from atat_tf import attacks as package
from atat_tf import losses
from atat_tf.attacks import (
    apgd,
    columns,
    fab,
    for_training,
    linf,
    square,
    stepped,
)
from atat_tf.errors import InputError
from tests.support import toys

_RADII = {"linf": 0.02, "l2": 0.3}
_EPSILON = _RADII["linf"]
_STEPS, _IMAGES, _CLASSES = 5, 8, 5
_LOGITS = toys.curved_logits(_CLASSES)
# They start at the image itself and read no seed.
_DETERMINISTIC = ("fgsm", "ifgsm", "column_fab_t", "column_ifgsm")


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


def _built(factory):
    parameters = inspect.signature(factory).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty]
    arguments = _arguments(_LOGITS)
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
                *_, last = columns.column(
                    column, _EPSILON, _EPSILON / 2, _CLASSES
                )
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


def _on(attack, logits_fn):
    """Returns an attack that asks another classifier, where a field is one."""
    inner = getattr(attack, "attack", attack)
    names = {field.name for field in dataclasses.fields(inner)}
    given = _arguments(logits_fn)
    functions = names & {"source", "logits_and_maps"}
    return _replaced(attack, **{name: given[name] for name in functions})


def _replaced(attack, **fields):
    """Returns an attack with other fields, also inside what wraps it."""
    inner = getattr(attack, "attack", None)
    if inner is None:
        return dataclasses.replace(attack, **fields)
    return type(attack)(dataclasses.replace(inner, **fields))


def _every_attack():
    """Returns {name: attack in steps}."""
    known = {}
    for name, factory in linf.ATTACKS.items():
        known[name] = _OneCall(_built(factory))
    known["pgd_restarts"] = _OneCall(linf.pgd(_EPSILON, 0.01, 3, restarts=2))
    for name, factory in for_training.TRAINING_ATTACKS.items():
        if factory is not linf.LinfAttack:
            known[f"training_{name}"] = _OneCall(_built(factory))
    known.update(_suites())
    kinds = {type(attack) for attack in known.values()}
    for kind in _classes_in_steps():
        if kind not in kinds:
            known[kind.__name__.lower()] = _built(kind)
    known["fab_restarted"] = fab.FAB(_EPSILON, _STEPS, restart=1)
    return known


_ATTACKS = _every_attack()
_every = pytest.mark.parametrize("name", _ATTACKS)


@functools.cache
def _traced(name):
    """Returns start, step, and how often the step's trace asks the classifier.

    Each is traced once, for any batch.
    """
    calls = []

    def logits_fn(images):
        calls.append(1)
        return _LOGITS(images)

    attack = _on(_ATTACKS[name], logits_fn)
    start = tf.function(lambda *rows: attack.start(logits_fn, *rows))
    start = start.get_concrete_function(
        tf.TensorSpec([None, *toys.IMAGE_SHAPE], tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, 2], tf.int64),
    )
    state = {
        name: tf.TensorSpec(row.shape, row.dtype)
        for name, row in start.structured_outputs.items()
    }
    calls.clear()
    step = tf.function(lambda *now: attack.step(logits_fn, *now))
    step = step.get_concrete_function(state, tf.TensorSpec([], tf.int32))
    return start, step, len(calls)


def _data():
    """Returns images, some of them black and white, labels and seeds."""
    images = toys.random_images(_IMAGES)
    # Black and white pixels are where the box cuts the ball.
    half = _IMAGES // 2
    images = tf.concat([tf.round(images[:half]), images[half:]], 0)
    labels = tf.argmax(_LOGITS(images), -1, tf.int32)
    return images, labels, toys.seeds(_IMAGES)


def _run(name, *rows):
    """Returns the state after the start and after every step."""
    start, step, _ = _traced(name)
    states = [start(*rows)]
    for index in range(_ATTACKS[name].num_steps):
        states.append(step(states[-1], tf.constant(index)))
    return states


@functools.cache
def _states(name):
    return _run(name, *_data())


def _eagerly(attack, logits_fn, *rows, num_steps=2):
    """Returns the state after some steps."""
    state = attack.start(logits_fn, *rows)
    for index in range(min(num_steps, attack.num_steps)):
        state = attack.step(logits_fn, state, tf.constant(index))
    return state


def _expect_inside(attack, state, bounds=(0.0, 1.0)):
    order = 2 if getattr(attack, "norm", "linf") == "l2" else np.inf
    for row in {"adversarial", "best", "point"} & {*state}:
        points = state[row].numpy()
        assert points.dtype == np.float32
        assert bounds[0] <= points.min() <= points.max() <= bounds[1]
        # FAB's path is the only one outside the ball.
        if row == "adversarial" or "closest" not in state:
            moved = np.reshape(points - state["images"], [len(points), -1])
            distances = np.linalg.norm(moved.astype(float), order, axis=1)
            assert distances.max() <= attack.epsilon + 1e-6


def _expect_same(here, there, rows=slice(None)):
    """All rows of two states; images of the second in an order of their own."""
    assert {*here} == {*there}
    for row, values in here.items():
        expected = there[row].numpy()[rows]
        np.testing.assert_allclose(values, expected, 1e-4, 1e-4, err_msg=row)


@_every
def test_inside_ball_and_box_after_every_step(name):
    states = _states(name)
    for state in states:
        _expect_inside(_ATTACKS[name], state)
    images, labels, _ = _data()
    adversarial = states[-1]["adversarial"]
    assert np.max(np.abs(adversarial - images)) > 1e-3
    if "margin" not in state:
        before, after = (
            np.mean(losses.cross_entropy(labels, _LOGITS(points)))
            for points in (images, adversarial)
        )
        assert after > before


@pytest.mark.parametrize(
    "name", [n for n, a in _ATTACKS.items() if not isinstance(a, _OneCall)]
)
def test_a_verdict_is_that_of_its_candidate_and_stays(name):
    before, *states = _states(name)
    labels = before["labels"]
    for index, state in enumerate(states):
        margin = state["margin"].numpy()
        expected = losses.margin(labels, _LOGITS(state["adversarial"]))
        np.testing.assert_allclose(margin, expected, 1e-4, 1e-5)
        assert np.all(margin - before["margin"] <= 1e-6)
        was_broken = before["broke_at"].numpy() != stepped.NEVER
        broke_at = state["broke_at"].numpy()
        is_broken = broke_at != stepped.NEVER
        np.testing.assert_array_equal(is_broken, margin <= 0)
        # A step may find out that where it starts from is wrong, too.
        assert {*broke_at[is_broken & ~was_broken]} <= {index, index + 1}
        for row in ("adversarial", "broke_at"):
            np.testing.assert_array_equal(
                state[row].numpy()[was_broken], before[row].numpy()[was_broken]
            )
        before = state


@_every
def test_alone_and_joined_between_steps_as_in_one_batch(name):
    start, step, _ = _traced(name)
    num_steps = _ATTACKS[name].num_steps
    parts = []
    for rows in ([3], [0, 1, 2], [7, 4, 6, 5]):
        state = start(*(tf.gather(values, rows) for values in _data()))
        for index in range(num_steps // 2):
            state = step(state, tf.constant(index))
        parts.append(state)
    joined = {row: tf.concat([part[row] for part in parts], 0) for row in state}
    for index in range(num_steps // 2, num_steps):
        joined = step(joined, tf.constant(index))
    _expect_same(joined, _states(name)[-1], [3, 0, 1, 2, 7, 4, 6, 5])


@_every
def test_the_seed_decides_where_an_image_starts(name):
    """Of eight equal images the last four have the seeds of the first four."""
    images, labels, seeds = (tf.repeat(row[-1:], 8, 0) for row in _data())
    seeds = tf.tile(toys.seeds(4), [2, 1])
    _, first, *_ = _run(name, images, labels, seeds)
    points = first.get("point", first["adversarial"]).numpy()
    np.testing.assert_allclose(points[:4], points[4:], 1e-4, 1e-4)
    if name in _DETERMINISTIC:
        np.testing.assert_allclose(points[:-1], points[1:], 1e-4, 1e-4)
    else:
        # Some may end in one corner, all of them will not.
        assert len({point.tobytes() for point in points[:4]}) > 1


@_every
def test_eager_is_the_same_in_the_stated_passes(name):
    counts = [0]

    @tf.custom_gradient
    def logits_fn(images):
        counts[-1] += 1
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(images)
            logits = _LOGITS(images)

        def gradient(upstream):
            counts[-1] += 1
            return tape.gradient(logits, images, upstream)

        return logits, gradient

    attack = _on(_ATTACKS[name], logits_fn)
    state = attack.start(logits_fn, *_data())
    for index in range(attack.num_steps):
        counts.append(0)
        state = attack.step(logits_fn, state, tf.constant(index))
    _expect_same(state, _states(name)[-1])
    if isinstance(attack, _OneCall):
        inner = attack.attack
        # Several starts are judged; TRADES predicts the clean images first.
        others = inner.restarts if inner.restarts > 1 else 0
        others += isinstance(inner, for_training.KLAttack)
        assert counts[1] == 2 * inner.num_steps * inner.restarts + others
        return
    # The image, and what a start of its own costs.
    assert 1 <= counts[0] <= 3
    assert counts[1] == stepped.passes_a_step(attack)
    # PGD and its kin judge the last point of each start by one more.
    restarts = getattr(getattr(attack, "attack", None), "restarts", 1)
    assert sum(counts[1:]) <= stepped.passes(attack) + restarts


@_every
def test_a_tiny_radius_leaves_the_image(name):
    attack = _replaced(_ATTACKS[name], epsilon=1e-8)
    if hasattr(getattr(attack, "attack", attack), "step_size"):
        attack = _replaced(attack, step_size=1e-8)
    state = _eagerly(attack, _LOGITS, *_data())
    np.testing.assert_allclose(
        state["adversarial"], state["images"], rtol=0, atol=1e-6
    )


@_every
def test_other_shapes_and_bounds(name):
    shape, bounds = (2, 9, 1), (-1.0, 2.0)
    weights = np.random.default_rng(0).normal(size=(*shape, _CLASSES))
    logits_fn = toys.linear_logits(weights)
    attack = _replaced(_on(_ATTACKS[name], logits_fn), bounds=bounds)
    images = toys.random_images(4, shape)
    images = 3 * tf.concat([tf.round(images[:2]), images[2:]], 0) - 1
    labels = tf.argmax(logits_fn(images), -1, tf.int32)
    state = _eagerly(attack, logits_fn, images, labels, toys.seeds(4))
    _expect_inside(attack, state, bounds)
    # FAB's path is the point; a candidate is what it has broken.
    points = state.get("point", state["adversarial"])
    assert np.max(np.abs(points - images)) > 1e-3


@_every
@pytest.mark.parametrize(
    "fields, message",
    [
        ({"epsilon": 0.0}, "epsilon.*epsilon=0.0"),
        ({"epsilon": np.inf}, "epsilon"),
        ({"bounds": (1.0, 0.0)}, "bounds in ascending"),
        ({"bounds": (0.0, np.inf)}, "finite bounds"),
        ({"num_steps": 0}, "num_steps.*num_steps=0"),
        ({"num_steps": 2.5}, "num_steps of the type int.*2.5"),
        ({"epsilon": "8/255"}, "epsilon of the type float.*8/255"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(name, fields, message):
    with pytest.raises(InputError, match=f"Expected {message}"):
        _replaced(_ATTACKS[name], **fields)


@_every
def test_bounds_as_a_list_are_those_as_a_tuple(name):
    attack, listed = (
        getattr(one, "attack", one)
        for one in (_ATTACKS[name], _replaced(_ATTACKS[name], bounds=[0, 1]))
    )
    assert {listed: name}[attack] == name


@_every
def test_images_of_another_range_are_refused(name):
    attack = _ATTACKS[name]
    attack = getattr(attack, "attack", attack)
    images, labels, seeds = _data()[:3]
    call = functools.partial(getattr(attack, "start", attack), _LOGITS)
    for wrong in (255 * images, images - 0.5, np.nan * images):
        with pytest.raises(InputError, match="pixels from 0 to 1, the attack"):
            call(wrong, labels, seeds)
    with pytest.raises(InputError, match="float images.*uint8"):
        call(tf.cast(255 * images, tf.uint8), labels, seeds)


_WEIGHTS = np.random.default_rng(0).normal(size=(*toys.IMAGE_SHAPE, _CLASSES))
_LINEAR = toys.linear_logits(_WEIGHTS)


@_every
@pytest.mark.parametrize(
    "logits_fn",
    [
        lambda images: tf.one_hot(
            tf.zeros(tf.shape(images)[0], tf.int32), _CLASSES
        ),
        lambda images: 1e-38 * _LINEAR(images),
        lambda images: 1e38 * _LINEAR(images),
        lambda images: np.nan * _LINEAR(images),
    ],
    ids=["unread", "tiny", "overflowing", "not a number"],
)
def test_finite_without_a_usable_gradient(name, logits_fn):
    images, _, seeds = (row[2:6] for row in _data())
    labels = tf.argmax(_LINEAR(images), -1, tf.int32)
    attack = _on(_ATTACKS[name], logits_fn)
    state = _eagerly(attack, logits_fn, images, labels, seeds)
    _expect_inside(attack, state)
    for row in {"adversarial", "point", "best", "gradient"} & {*state}:
        assert np.all(np.isfinite(state[row]))
    logits = logits_fn(images)
    if "broke_at" in state and np.array_equal(logits[0], logits[-1]):
        # The image is not read: no attack changes a verdict.
        broken = state["broke_at"].numpy() != stepped.NEVER
        wrong = ~losses.is_right(labels, logits)
        np.testing.assert_array_equal(broken, wrong)


def _top(logits):
    return tf.one_hot(tf.argmax(logits, -1), _CLASSES, True, False, dtype=bool)


# What logits become once a little colour is added to an image.
_WITHOUT_A_WINNER = {
    "all even": tf.ones_like,
    "the two largest even": lambda logits: tf.where(
        logits < tf.math.top_k(logits, 2).values[:, 1:], logits, 1.0
    ),
    "not a number": lambda logits: np.nan * tf.ones_like(logits),
    "one not a number": lambda logits: tf.where(_top(-logits), np.nan, logits),
    "infinite": lambda logits: tf.where(_top(logits), np.inf, logits),
    "all infinite": lambda logits: np.inf * tf.ones_like(logits),
}


def _near_gray(directions=None):
    """Returns images of whole gray levels around the middle, and labels.

    Args:
      directions: [b, H, W, C] in [-1, 1]; None for random ones.
    """
    if directions is None:
        directions = 2 * toys.random_images(4) - 1
    images = tf.round(127 + 2 * directions) / 255
    return images, tf.argmax(_LINEAR(images - 0.5), -1, tf.int32)


@_every
@pytest.mark.parametrize("change", _WITHOUT_A_WINNER)
def test_an_image_without_a_winner_is_broken(name, change):
    images, labels = _near_gray()

    def logits_fn(images):
        levels = 255 * images
        is_coloured = tf.reduce_any(
            tf.abs(levels - tf.round(levels)) > 1e-2, axis=(1, 2, 3)
        )
        logits = _LINEAR(images - 0.5)
        changed = _WITHOUT_A_WINNER[change](logits)
        return tf.where(is_coloured[:, None], changed, logits)

    assert np.all(losses.is_right(labels, logits_fn(images)))
    attack = _on(_ATTACKS[name], logits_fn)
    state = _eagerly(
        attack, logits_fn, images, labels, toys.seeds(4), num_steps=_STEPS
    )
    right = losses.is_right(labels, logits_fn(state["adversarial"]))
    assert not np.any(right)
    if "broke_at" in state:
        assert np.all(state["broke_at"] > stepped.NEVER)


_WITHOUT_THE_LABELS_GRADIENT = (
    "column_square",
    "column_square_l2",
    "noise",
    "training_trades",
)


@pytest.mark.parametrize(
    "name", [n for n in _ATTACKS if n not in _WITHOUT_THE_LABELS_GRADIENT]
)
def test_even_scores_of_a_head_that_is_cut_off_are_found(name):
    """z -> min(z, c): other classes reach the label's score, none exceeds it.

    Few random tries do not get that far, nor does the loss of TRADES, which
    asks for another distribution and not for another class.
    """
    of_class = np.moveaxis(np.sign(_WEIGHTS), -1, 0)[:4]
    images, labels = _near_gray(tf.constant(of_class, tf.float32))
    np.testing.assert_array_equal(labels, range(4))

    def logits_fn(images):
        return tf.minimum(_LINEAR(images - 0.5), 0.5)

    assert np.all(losses.is_right(labels, logits_fn(images)))
    attack = _on(_ATTACKS[name], logits_fn)
    state = _eagerly(
        attack, logits_fn, images, labels, toys.seeds(4), num_steps=_STEPS
    )
    margin = losses.verdict_margin(labels, logits_fn(state["adversarial"]))
    np.testing.assert_array_equal(margin, 0)
    if "broke_at" in state:
        assert np.all(state["broke_at"] > stepped.NEVER)


@_every
def test_the_graph_is_one_loop_without_python(name):
    """Fewer calls in a trace than steps: nothing is unrolled."""
    _, step, num_calls = _traced(name)
    assert 1 <= num_calls < _STEPS
    definition = step.graph.as_graph_def()
    nodes = list(definition.node)
    for body in definition.library.function:
        nodes.extend(body.node_def)
    assert not [node.op for node in nodes if "PyFunc" in node.op]


@pytest.mark.parametrize(
    "name", [n for n, a in _ATTACKS.items() if isinstance(a, _OneCall)]
)
def test_is_a_constant_and_moves_no_variable(name):
    classifier = toys.small_classifier()
    images = toys.random_images(4)
    before = classifier.get_weights()
    weights = [v.value for v in classifier.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(images)
        adversarial = _ATTACKS[name].attack(
            toys.inference(classifier),
            images,
            toys.random_labels(4),
            toys.seeds(4),
        )
    assert not any(
        gradient is not None
        for gradient in tape.gradient(adversarial, [images, *weights])
    )
    for old, new in zip(before, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "attack, fields, message",
    [
        (linf.LinfAttack, {"epsilon": float("nan")}, "epsilon=nan"),
        (linf.LinfAttack, {"step_size": 0.0}, "step_size > 0.*step_size=0.0"),
        (linf.LinfAttack, {"restarts": 0}, "restarts >= 1.*restarts=0"),
        (
            linf.LinfAttack,
            {"restarts": 2, "random_start": False},
            "random start.*restarts=2",
        ),
        (apgd.APGD, {"norm": "l1"}, "a norm among l2, linf"),
        (
            apgd.APGD,
            {"loss": "ce"},
            "a loss among cross_entropy, dlr, margin, target",
        ),
        (apgd.APGD, {"rho": 0.0}, r"rho in \(0, 1\]"),
        (apgd.APGD, {"rho": 1.5}, r"rho in \(0, 1\]"),
        (apgd.APGD, {"restart": -1}, r"restart in \[0, 1024\)"),
        (apgd.APGD, {"restart": 1024}, r"restart in \[0, 1024\)"),
        (apgd.APGD, {"target": 1}, "no target for cross_entropy"),
        (apgd.APGD, {"loss": "dlr", "target": 1}, "no target for dlr"),
        (apgd.APGD, {"loss": "targeted_dlr"}, "a target .* for targeted_dlr"),
        (apgd.APGD, {"loss": "margin", "target": 0}, r"target in \[1, 8192\)"),
        (
            apgd.APGD,
            {"loss": "margin", "target": 8192},
            r"target in \[1, 8192\)",
        ),
        (fab.FAB, {"num_steps": 3}, "num_steps > 3.*num_steps=3"),
        (fab.FAB, {"target": 0}, "target >= 1.*target=0"),
        (fab.FAB, {"alpha_max": 1.5}, r"alpha_max in \[0, 1\].*alpha_max=1.5"),
        (fab.FAB, {"eta": 0.9}, "eta >= 1.*eta=0.9"),
        (fab.FAB, {"beta": 1.0}, r"beta in \(0, 1\).*beta=1.0"),
        (fab.FAB, {"restart": -1}, "restart >= 0.*restart=-1"),
        (
            square.Square,
            {"epsilon": -1.0, "norm": "l2"},
            "epsilon > 0.*epsilon=-1.0",
        ),
        (square.Square, {"norm": "l1"}, "norm of linf or l2.*norm='l1'"),
        (square.Square, {"p_init": 0.0}, r"p_init in \(0, 1\].*p_init=0.0"),
        (square.Square, {"restart": -1}, "restart >= 0.*restart=-1"),
        (square.Square, {"schedule": 0}, "schedule >= 1.*schedule=0"),
        (for_training.NoiseFGSM, {"noise": -1.0}, "noise >= 0.*-1.0"),
        (for_training.NoiseFGSM, {"epsilon": 2.0}, "epsilon in"),
        (for_training.KLAttack, {"restarts": 2}, "restarts=1.*restarts=2"),
    ],
)
def test_rules_of_one_kind(attack, fields, message):
    """On top of those of all."""
    valid = _built(attack)
    with pytest.raises(InputError, match=message):
        dataclasses.replace(valid, **fields)


@pytest.mark.parametrize("attack", [apgd.APGD, square.Square])
def test_only_an_l2_radius_may_exceed_the_range_of_a_pixel(attack):
    assert attack(3.0, "l2").epsilon == 3.0
    with pytest.raises(InputError, match=r"epsilon.*epsilon=3.0"):
        attack(3.0)


def test_epsilon_may_fill_the_box():
    assert linf.fgsm(1.0).epsilon == 1.0
    wide = linf.LinfAttack(255.0, 1.0, 1, bounds=(0.0, 255.0))
    assert wide.epsilon == 255.0
