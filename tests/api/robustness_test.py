"""Accuracy under attack of any classifier, in any range, by any labels."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import atat_tf as atat
from atat_tf.errors import InputError
from atat_tf.evaluation.statistics import estimate as estimates
from atat_tf.models import layers as model_layers
from tests.support import digits, runs, toys

EPSILON = 16 / 255
X, Y = digits.test_images(24)
Y = np.where(np.arange(24) % 8 != 1, Y, (Y + 1) % 10)  # three are wrong
ATTACKS = ("clean", "pgd5")
MEAN, DEVIATION = 0.3, 0.2
NORMALISED = ([-MEAN / DEVIATION], [(1 - MEAN) / DEVIATION])


@keras.saving.register_keras_serializable("tests")
class Wrapped(keras.Model):
    """A subclassed model around layers, or around TensorFlow's functions."""

    def __init__(self, inner, function=None):
        super().__init__()
        self.inner, self.function = inner, function

    def call(self, images):
        if self.function:
            images = self.function(images)
        return self.inner(images)


class Rooted(Wrapped):
    """Its call is no graph of Keras layers, since it asks for a shape."""

    def call(self, images):
        count = int(tf.shape(images)[0]) if tf.executing_eagerly() else 1
        return self.inner(tf.identity(images)) + 0.0 * count


def _two_in_a_row():
    """Two models whose layers have the same names, the second a softmax."""
    whole = digits.classifier()
    first = keras.Sequential([keras.Input((8, 8, 1)), *whole.layers[:3]])
    second = keras.Sequential(
        [keras.Input((4, 4, 16)), *whole.layers[3:]], name="second"
    )
    return keras.Sequential([keras.Input((8, 8, 1)), first, second])


def _same_names():
    """A head in a model of its own, named as a layer of the body."""
    whole = digits.classifier()
    head = keras.Sequential([keras.Input((16,))], name="head")
    head.add(layers.Dense(10, activation="softmax", name="maps"))
    head.set_weights(whole.layers[-1].get_weights())
    return keras.Sequential([keras.Input((8, 8, 1)), *whole.layers[:-1], head])


def _integers():
    image = keras.Input((8, 8, 1), dtype="uint8")
    inner = digits.classifier()
    return keras.Model(image, inner(layers.Rescaling(1 / 255)(image)))


def _any_size():
    return digits.classifier(shape=(None, None, 1))


SAME = {
    "softmax": digits.classifier,
    "logits": lambda: digits.classifier(activation=None),
    "nested": lambda: keras.Sequential(
        [keras.Input((8, 8, 1)), digits.classifier()]
    ),
    "two in a row": _two_in_a_row,
    "equal names": _same_names,
    "subclassed": lambda: Wrapped(digits.classifier()),
    "no graph": lambda: Rooted(digits.classifier(activation=None)),
    "any size": _any_size,
    "function of tensors": lambda: digits.classifier(activation=None).call,
}


@pytest.fixture(name="expected", scope="module")
def _expected():
    model = digits.classifier()
    found = atat.robust_accuracy(model, X, Y, ATTACKS, epsilon=EPSILON)
    assert 0 < found.accuracy["pgd5"] < found.accuracy["clean"] < 1
    return found


@pytest.mark.parametrize("build", SAME.values(), ids=SAME)
def test_one_function_has_one_robustness(build, expected):
    found = atat.robust_accuracy(build(), X, Y, ATTACKS, epsilon=EPSILON)
    for name in ATTACKS:
        np.testing.assert_array_equal(found.stands[name], expected.stands[name])


@pytest.mark.parametrize("policy", ["float64", "mixed_float16", "bfloat16"])
def test_other_number_types(policy, expected):
    """Rounding may move an image that is on the edge."""
    with toys.precision(policy):
        model = digits.classifier()
    found = atat.robust_accuracy(model, X, Y, ATTACKS, epsilon=EPSILON)
    for name in ATTACKS:
        differs = found.stands[name] != expected.stands[name]
        assert differs.mean() <= 0.1


RANGES = {
    "0 to 255": ((0, 255), [layers.Rescaling(1 / 255)]),
    "-1 to 1": ((-1, 1), [layers.Rescaling(0.5, 0.5)]),
    "normalised": (NORMALISED, [layers.Rescaling(DEVIATION, MEAN)]),
}


@pytest.mark.parametrize("bounds, first", RANGES.values(), ids=RANGES)
def test_another_range_is_the_same_robustness(bounds, first, expected):
    low, high = (np.asarray(b, np.float32) for b in bounds)
    x = X * (high - low) + low
    width = 1.0 if low.ndim else float(high - low)
    found = atat.robust_accuracy(
        digits.classifier(*first),
        x,
        Y,
        ATTACKS,
        epsilon=EPSILON * width,
        bounds=bounds,
    )
    for name in ATTACKS:
        np.testing.assert_array_equal(found.stands[name], expected.stands[name])
        theirs = (found.adversarial[name] - low) / (high - low)
        np.testing.assert_allclose(
            theirs, expected.adversarial[name], atol=2e-6
        )
    distance = np.abs(found.adversarial["pgd5"] - x)
    assert distance.max() <= EPSILON * (high - low) * (1 + 1e-5)


def test_adversarial_images_are_what_the_verdicts_say(expected):
    images = expected.adversarial["pgd5"]
    predicted = digits.classifier().predict(images, verbose=0).argmax(1)
    np.testing.assert_array_equal(predicted == Y, expected.stands["pgd5"])
    assert np.abs(images - X).max() <= EPSILON + 1e-7
    wrong = ~expected.stands["clean"]
    np.testing.assert_array_equal(images[wrong], X[wrong])
    assert images.min() >= 0 and images.max() <= 1


def test_bytes_are_scaled_to_the_bounds():
    pixels = np.rint(X * 255).astype(np.uint8)
    ways = [
        (digits.classifier(), pixels, (0, 1)),
        (digits.classifier(), pixels / np.float32(255), (0, 1)),
        (digits.classifier(layers.Rescaling(1 / 255)), pixels, (0, 255)),
        (_integers(), pixels.astype(np.int64), (0, 255)),
    ]
    found = [
        atat.robust_accuracy(
            model, x, Y, "pgd5", epsilon=EPSILON * bounds[1], bounds=bounds
        )
        for model, x, bounds in ways
    ]
    for one in found[1:]:
        np.testing.assert_array_equal(
            one.stands["pgd5"], found[0].stands["pgd5"]
        )


NAMES = np.array("zero one two three four five six seven eight nine".split())
LABELS = {
    "column": (Y[:, None], None),
    "one-hot": (np.eye(10)[Y], None),
    "list": (Y.tolist(), None),
    "tensor": (tf.constant(Y), None),
    "whole floats": (Y.astype(float), None),
    "names": (NAMES[Y], NAMES),
    "names in alphabetical order": (Y.astype(str), None),
}


@pytest.mark.parametrize("labels, class_names", LABELS.values(), ids=LABELS)
def test_labels(labels, class_names, expected):
    found = atat.robust_accuracy(
        digits.classifier(), X, labels, "clean", class_names=class_names
    )
    np.testing.assert_array_equal(
        found.stands["clean"], expected.stands["clean"]
    )


@pytest.mark.parametrize("are_shares", [False, True])
def test_numpy_has_square_alone_and_a_warning(are_shares):
    model = digits.classifier(activation="softmax" if are_shares else None)
    call = tf.function(model.call)

    def scores(images):
        assert isinstance(images, np.ndarray)
        return call(images).numpy()

    with pytest.warns(UserWarning, match="clean, square40 left"):
        found = atat.robust_accuracy(
            scores, X, Y, ("clean", "pgd5", "square40"), epsilon=EPSILON
        )
    assert list(found.accuracy) == ["clean", "square40"]
    same = atat.robust_accuracy(
        digits.classifier(), X, Y, "clean", epsilon=EPSILON
    )
    assert found.accuracy["clean"] == same.accuracy["clean"]
    assert found.accuracy["square40"] < found.accuracy["clean"]


def test_a_name_does_not_say_that_an_attack_needs_no_gradient():
    """As that of a plugin's PGD, which would find nothing."""
    for name in ("square_steps", "clean_steps"):
        atat.register("attack", name)(
            lambda epsilon: atat.LinfAttack(epsilon, epsilon / 4, 3)
        )

    def scores(images):
        return digits.classifier()(images).numpy()

    with pytest.warns(UserWarning, match=r"clean_steps, .*is square1 left"):
        found = atat.robust_accuracy(
            scores, X, Y, "square_steps,clean_steps,square1", epsilon=EPSILON
        )
    assert list(found.accuracy) == ["square1"]


@pytest.mark.parametrize("path", ["/dev/null", "/proc/x", "/nowhere/x", "/"])
def test_a_ledger_that_cannot_be_written_is_refused(path):
    with pytest.raises(InputError, match=f"ledger's file.*{path}"):
        atat.robust_accuracy(digits.classifier(), X, Y, "clean", ledger=path)


def test_a_ledger_goes_on_and_knows_its_model(tmp_path):
    path = tmp_path / "mine.jsonl"
    first = atat.robust_accuracy(
        digits.classifier(), X, Y, "pgd5", epsilon=EPSILON, ledger=path
    )
    size = path.stat().st_size
    again = atat.robust_accuracy(
        digits.classifier(), X, Y, "pgd5", epsilon=EPSILON, ledger=path
    )
    assert path.stat().st_size == size
    np.testing.assert_array_equal(again.stands["pgd5"], first.stands["pgd5"])
    with pytest.raises(InputError, match="without a ledger"):
        _ = again.adversarial
    other = digits.classifier()
    other.layers[-1].bias.assign_add(np.eye(10)[3] * 9)
    third = atat.robust_accuracy(
        other, X, Y, "pgd5", epsilon=EPSILON, ledger=path
    )
    assert path.stat().st_size > size
    assert third.accuracy["pgd5"] < first.accuracy["pgd5"]


def test_curve_and_what_a_notebook_shows(expected):
    curve = atat.robust_accuracy(
        digits.classifier(), X, Y, ATTACKS, epsilon=[1 / 255, EPSILON]
    )
    assert curve.epsilons == (1 / 255, EPSILON)
    less, more = curve.accuracy["pgd5"]
    assert more == expected.accuracy["pgd5"] < less
    assert curve.worst_case == [less, more]
    assert "pgd5" in repr(curve) and "<th>pgd5" in curve._repr_html_()
    assert "ε = 1/255" in repr(curve) and "<td>1/255<" in curve._repr_html_()
    share = f"{100 * expected.accuracy['pgd5']:.2f}"
    assert share in repr(expected) and share in expected._repr_html_()
    low, high = expected.interval["pgd5"]
    assert 0 < low < expected.accuracy["pgd5"] < high < 1


def test_autoattack_in_two_lines():
    found = atat.robust_accuracy(
        digits.classifier(), X[:4], Y[:4], "autoattack", epsilon=1.0
    )
    assert found.accuracy == {"autoattack": 0.0}


def test_targets():
    targets = (Y + 1) % 10
    model = digits.classifier()
    adversarial = atat.attack(
        model, X, Y, "pgd20", epsilon=0.4, targets=targets
    )
    assert np.abs(adversarial - X).max() <= 0.4 + 1e-6
    before, after = (
        (model.predict(images, verbose=0).argmax(1) == targets).mean()
        for images in (X, adversarial)
    )
    assert before < 0.2 and after > 0.6


# What every entry refuses is in extremes_test.
REFUSED = {
    "bounds of another range": ({"bounds": (0, 255), "epsilon": 8}, "(0, 1)"),
    "one image": ({"x": X[0]}, "images .n, height"),
    "another size": ({"x": X[:, :4]}, "the size that the model takes"),
    "descending": ({"bounds": (1, 0)}, "low < high"),
    "channels": ({"bounds": ([0, 0], [1, 1])}, "bounds of 1 channels"),
    "radius of another unit": (
        {"x": X * 255, "bounds": (0, 255)},
        "epsilon in the unit of bounds, as 8 for 8/255",
    ),
    "two of the names": ({"y": (Y % 2).astype(str)}, "10 names of classes"),
    "batch of a half": ({"batch_size": 1.5}, "batch_size of the type int"),
    "seed": ({"seed": -1}, r"seed, a whole number in \[0, 2"),
    "norm": ({"norm": "l1"}, "norm of linf or l2"),
    "attack": ({"attacks": "pdg20"}, "Did you mean 'pgd20'"),
    "FAB in l2": ({"attacks": "fab_t", "norm": "l2"}, "an attack in ℓ2"),
    "no attack": ({"attacks": ()}, "names of attacks, one at least"),
    "a number": (
        {"attacks": ["clean", 3]},
        "attacks of the type str or Sequence of",
    ),
    "endless": ({"attacks": f"pgd{10**20}"}, "any number of steps"),
    "labels beyond int64": ({"y": [2**70] * 24}, "10 names of classes"),
    "ledger": ({"ledger": "/nowhere/a.jsonl"}, "existing folder"),
    "nothing to sample": (
        {"attacks": "clean,pgd2", "precision": 0.1},
        "an attack of several parts",
    ),
    "no model": ({"model": 3}, "a Keras model or a function"),
    "one output": (
        {"model": lambda images: tf.reduce_sum(images, (1, 2))},
        "one score a class",
    ),
    "a function that fails": (
        {"model": lambda images: images[:, :, 99]},
        "a function of images",
    ),
}


@pytest.mark.parametrize("arguments, message", REFUSED.values(), ids=REFUSED)
def test_refusals(arguments, message):
    given = {"model": digits.classifier(), "x": X, "y": Y, **arguments}
    with pytest.raises(InputError, match=message) as caught:
        atat.robust_accuracy(**given)
    assert "\n" not in str(caught.value)


class _Cached:
    """Answers what it has answered first within twice ε of an image."""

    def __init__(self, call):
        self.call, self.seen = call, []

    def __call__(self, images):
        return np.stack([self._answer(np.asarray(i)) for i in images])

    def _answer(self, image):
        for known, answer in self.seen:
            if np.abs(known - image).max() <= 2 * EPSILON:
                return answer
        self.seen.append((image, np.asarray(self.call(image[None]))[0]))
        return self.seen[-1][1]


def _hard_labels(call):
    return lambda images: np.eye(10)[np.argmax(call(np.asarray(images)), -1)]


@pytest.mark.parametrize("wrap", [_Cached, _hard_labels])
def test_scores_that_stay_the_same_around_an_image_are_refused(wrap):
    """Square alone is left, and finds nothing there."""
    model = wrap(digits.classifier(activation=None).call)
    with (
        pytest.warns(UserWarning, match="square40 left"),
        pytest.raises(InputError, match="scores that change with the image"),
    ):
        atat.robust_accuracy(model, X, Y, ("pgd5", "square40"), epsilon=EPSILON)


def _asks_for_its_shape(call):
    """Right alone, so that no candidate is confirmed."""
    return lambda images: call(images) * (9 if images.shape[0] == 1 else 1)


def _asks_for_the_number_of_images(call):
    def scores(images):
        return call(images) * tf.where(tf.shape(images)[0] == 1, 9.0, 1.0)

    return scores


def _rounds_alone(call):
    """Clean pixels are what it rounds to: noise alone tells."""

    def scores(images):
        is_alone = tf.shape(images)[0] == 1
        rounded = tf.round(images * 16) / 16
        return call(tf.where(is_alone, rounded, images))

    return scores


def _asks_for_more_images_than_are_sampled(call):
    def scores(images):
        return call(images) * tf.where(tf.shape(images)[0] > 40, 9.0, 1.0)

    return scores


def _not_a_number_in_a_batch(call):
    """Of images between sixteenths, which clean ones never are."""

    def scores(images):
        levels = tf.reduce_max(tf.abs(images * 16 - tf.round(images * 16)))
        is_bad = (levels > 1e-3) & (tf.shape(images)[0] > 1)
        return tf.where(is_bad, np.nan, call(images))

    return scores


def _right_in_sizes_that_are_usual(call):
    def scores(images):
        size = tf.shape(images)[0]
        is_usual = tf.reduce_any(size == [1, 24, 32, 64, 100])
        return tf.where(is_usual, call(images), call(images)[:, ::-1])

    return scores


_OFFSET = 1e6  # what all classes have in common


def _random_beside_an_offset(call):
    def scores(images):
        honest = call(images)
        return honest + 3 * tf.random.normal(tf.shape(honest)) + _OFFSET

    return scores


def _another_answer_alone_beside_an_offset(call):
    asked = _asks_for_the_number_of_images(call)
    return lambda images: asked(images) + _OFFSET


def _no_gradient_beside_an_offset(call):
    cut = _with_gradient(lambda g: 0 * g)(call)
    return lambda images: cut(images) + _OFFSET


def _random_beside_one_large_answer(call):
    def scores(images):
        random = call(images) + 3 * tf.random.normal([tf.shape(images)[0], 10])
        distance = tf.reduce_max(tf.abs(images - X[:1]), (1, 2, 3))
        return tf.where(distance[:, None] < 1e-3, 1e9 * call(images), random)

    return scores


def _with_gradient(replaced):
    @tf.custom_gradient
    def unchanged(images):
        return tf.identity(images), replaced

    return lambda call: lambda images: call(unchanged(images))


CHEATS = {
    "NaN in a batch": (_not_a_number_in_a_batch, "alone to equal.* inf "),
    "other sizes": (_right_in_sizes_that_are_usual, "in a batch of 18"),
    "random, offset": (_random_beside_an_offset, "random layers"),
    "random, but one": (_random_beside_one_large_answer, "random layers"),
    "alone, offset": (_another_answer_alone_beside_an_offset, "alone to equal"),
    "zero, offset": (_no_gradient_beside_an_offset, "zero at 24 of 24"),
    "another answer alone": (_asks_for_its_shape, "alone to equal"),
    "in the graph": (_asks_for_the_number_of_images, "alone to equal"),
    "rounded alone": (_rounds_alone, "alone to equal"),
    "zero": (_with_gradient(lambda g: 0 * g), "'zero at 24 of 24 images'"),
    "NaN": (_with_gradient(lambda g: g * np.nan), "not finite at 24"),
    "random": (
        _with_gradient(lambda g: g * tf.random.normal(tf.shape(g))),
        "others at each call",
    ),
}


@pytest.mark.parametrize("targets", [None, (Y + 1) % 10])
@pytest.mark.parametrize("wrap, message", CHEATS.values(), ids=CHEATS)
def test_what_misleads_an_attack_is_refused(wrap, message, targets):
    model = wrap(digits.classifier(activation=None).call)
    with pytest.raises(InputError, match=message):
        atat.attack(model, X, Y, "pgd2", epsilon=EPSILON, targets=targets)


@pytest.mark.parametrize("count", [1, 3])
def test_one_image_and_equal_ones_show_a_gradient_of_zero(count):
    model = CHEATS["zero"][0](digits.classifier(activation=None).call)
    images, labels = np.repeat(X[:1], count, 0), np.repeat(Y[:1], count)
    with pytest.raises(InputError, match=f"zero at {count} of {count}"):
        atat.robust_accuracy(model, images, labels, "pgd2", epsilon=EPSILON)


def test_a_small_gradient_is_followed():
    call = digits.classifier(activation=None).call
    small = _with_gradient(lambda g: 1e-27 * g)(call)
    accuracies = [
        atat.robust_accuracy(model, X, Y, "pgd5", epsilon=EPSILON).accuracy
        for model in (small, call)
    ]
    assert accuracies[0] == accuracies[1]


def test_what_most_candidates_refute_is_no_robustness():
    """It knows its images, and alone it answers for the nearest of them."""
    call = digits.classifier(activation=None).call

    def scores(images):
        apart = tf.abs(images[:, None] - tf.constant(X, tf.float32))
        distance = tf.reduce_max(apart, (2, 3, 4))
        is_far = tf.reduce_min(distance, 1) > 9 / 255
        nearest = tf.gather(X, tf.argmin(distance, 1))
        is_alone = tf.shape(images)[0] == 1
        known = tf.where(is_far[:, None, None, None], nearest, images)
        return call(tf.where(is_alone, known, images))

    with pytest.raises(InputError, match="alone as they were.*confirmed=0"):
        atat.robust_accuracy(scores, X, Y, "pgd2", epsilon=32 / 255)


def test_the_whole_batch_is_compared_with_images_alone():
    call = digits.classifier(activation=None).call
    model = _asks_for_more_images_than_are_sampled(call)
    many = np.tile(X, (3, 1, 1, 1))
    with pytest.raises(InputError, match="alone to equal"):
        atat.robust_accuracy(model, many, np.tile(Y, 3), "clean")


def test_a_ledger_knows_what_a_function_answers_beside_the_images(tmp_path):
    call = digits.classifier(activation=None).call
    masked = _with_gradient(lambda g: -g)(call)
    shares = [
        atat.robust_accuracy(
            model, X, Y, "pgd5", epsilon=EPSILON, ledger=tmp_path / "one.jsonl"
        ).accuracy["pgd5"]
        for model in (masked, call)
    ]
    assert shares[0] > shares[1]


def test_a_function_takes_bytes():
    call = digits.classifier(activation=None).call
    given = np.rint(X * 255).astype(np.uint8)
    result = atat.robust_accuracy(call, given, Y, ["clean", "pgd2"])
    assert result.accuracy["pgd2"] <= result.accuracy["clean"]


def test_square_needs_no_gradient():
    model = CHEATS["zero"][0](digits.classifier(activation=None).call)
    found = atat.robust_accuracy(model, X, Y, "square40", epsilon=EPSILON)
    assert found.accuracy["square40"] < 1


def test_refuted_candidates_are_shown():
    found = atat.Robustness({"pgd5": Y == 1}, EPSILON, "linf", 3)
    for shown in (repr(found), found._repr_html_()):
        assert "3 candidates were refuted" in shown


def test_names_load_nothing_and_know_the_layers(tmp_path):
    """In a new process, as a user's is."""
    image = keras.Input((8, 8, 3))
    padded = model_layers.PadChannels(4)(image)
    keras.Model(image, padded).save(tmp_path / "m.keras")
    program = (
        "import sys, atat_tf as atat\n"
        "assert 'robust_accuracy' in dir(atat)\n"
        "assert not {'tensorflow', 'keras'} & sys.modules.keys()\n"
        "atat.attack\n"
        "import keras\n"
        f"print(keras.saving.load_model({str(tmp_path / 'm.keras')!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=runs.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _of_three_classes(count):
    """Returns a network, images and what it says of them: two targets each."""
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).random((count, 4, 4, 1), np.float32)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    return model, images, model.predict(images, verbose=0).argmax(-1)


def test_a_precision_that_all_images_meet_gives_the_figure():
    given = *_of_three_classes(60), ("clean", "apgd_t2")
    found = atat.robust_accuracy(*given, epsilon=EPSILON, precision=0.15)
    whole = atat.robust_accuracy(*given, epsilon=EPSILON)
    assert not found.estimates
    assert found.accuracy == whole.accuracy
    assert found.interval == whole.interval
    assert found.worst_case == whole.worst_case


def test_a_precision_gives_an_estimate(monkeypatch):
    monkeypatch.setattr(estimates, "PILOTS", (5, 5))
    found = atat.robust_accuracy(
        *_of_three_classes(60),
        ("clean", "apgd_t2"),
        epsilon=EPSILON,
        precision=0.15,
    )
    estimate = found.estimates["apgd_t2"]
    assert estimate.num_sampled < estimate.num_standing
    assert found.accuracy["apgd_t2"] == estimate.accuracy
    assert found.interval["apgd_t2"] == (estimate.low, estimate.high)
    assert "apgd_t2 (estimate)" in repr(found)
    curve = atat.RobustnessCurve((found,))._repr_html_()
    assert curve.count("about ") == 1
    assert f"<td>about {100 * estimate.accuracy:.2f}<" in curve
    assert [*found.stands] == ["clean"]
    with pytest.raises(InputError, match="no precision"):
        _ = found.worst_case
    with pytest.raises(InputError, match="a precision.*'apgd_t2'"):
        _ = found.adversarial


def test_a_curve_has_the_worst_case_of_each_radius_that_has_one(monkeypatch):
    monkeypatch.setattr(estimates, "PILOTS", (5, 5))
    given = *_of_three_classes(60), ("clean", "apgd_t2")
    # The first attack breaks all images at the larger one: nothing is guessed.
    curve = atat.robust_accuracy(*given, epsilon=(EPSILON, 1), precision=0.15)
    sampled, whole = curve.worst_case
    assert np.isnan(sampled)
    assert whole == curve.points[1].worst_case == 0


def test_a_ledger_with_all_verdicts_is_not_estimated_from(tmp_path):
    given = *_of_three_classes(60), ("clean", "apgd_t2")
    settings = {"epsilon": EPSILON, "ledger": tmp_path / "ledger.jsonl"}
    whole = atat.robust_accuracy(*given, **settings)
    found = atat.robust_accuracy(*given, **settings, precision=0.15)
    assert not found.estimates
    np.testing.assert_array_equal(
        found.stands["apgd_t2"], whole.stands["apgd_t2"]
    )
