"""Own arrays as a data set, and names of one's own in every command."""

import dataclasses
import re
import sys
import types

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import atat_tf as atat
from atat_tf.attacks import columns
from atat_tf.data import datasets
from atat_tf.defenses import atat as defenses
from atat_tf.errors import InputError
from tests.support import commands, digits, runs

X, Y = digits.test_images(40)
NAMES = "zero one two three four five six seven eight nine".split()


def test_splits_are_drawn_once_and_do_not_overlap():
    pixels = np.rint(X * 255).astype(np.uint8)
    data = atat.Data((X, np.array(NAMES)[Y]), class_names=NAMES, flip=True)
    again = atat.Data((pixels, Y), class_names=NAMES)
    parts = data.train, data.validation, data.test
    assert [len(part) for part in parts] == [32, 4, 4]
    whole = np.concatenate([part.images for part in parts])
    np.testing.assert_array_equal(
        np.sort(whole.reshape(40, -1), 0), np.sort(pixels.reshape(40, -1), 0)
    )
    np.testing.assert_array_equal(data.test.images, again.test.images)
    np.testing.assert_array_equal(data.test.labels, again.test.labels)
    dataset = data.dataset("mine")
    assert dataset.spec == datasets.Spec(10, (8, 8, 1), 4, True, (*NAMES,))
    assert "32 train, 4 validation, 4 test" in repr(data)


def test_given_splits_stay():
    data = atat.Data((X[:20], Y[:20]), (X[20:30], Y[20:30]), (X[30:], Y[30:]))
    np.testing.assert_array_equal(data.validation.labels, Y[20:30])
    assert data.class_names == tuple("0123456789")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"train": X}, "train of the type tuple"),
        ({"train": (X * 255, Y)}, "pixels within bounds"),
        ({"train": (X[:5], Y[:5])}, "10 training images and more"),
        ({"train": (X, Y[:9])}, "a label for each of 40"),
        ({"test": (X[:, :4], Y)}, "test images of .8, 8, 1."),
        ({"test": (X, Y + 9)}, "labels from 0 to 9"),
        ({"class_names": ["a", "b"]}, "labels from 0 to 1"),
    ],
)
def test_refused_arrays(arguments, message):
    with pytest.raises(InputError, match=message):
        atat.Data(**{"train": (X, Y), **arguments})


def test_plugins_names_train_and_evaluate(tmp_path, monkeypatch):
    """A data set, a backbone, a defense and an attack in `train`."""
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from configs import at\n"
        "def get_config():\n"
        "  config = at.get_config()\n"
        "  config.unlock()\n"
        "  config.defense = {'name': 'halves', 'share': 0.25}\n"
        "  return config.lock()\n"
    )
    plugin = types.ModuleType("my_plugin")
    monkeypatch.setitem(sys.modules, "my_plugin", plugin)

    @atat.register("defense", "halves")
    @dataclasses.dataclass(frozen=True)
    class Halves(defenses.AdversarialTraining):
        share: float = 0.5

    @atat.register("attack", "rfgsm")
    def rfgsm(epsilon):
        return atat.LinfAttack(epsilon, 1.25 * epsilon, 1)

    @atat.register("backbone", "pooled")
    def pooled(image_shape, num_classes, depth, width, **settings):
        image = keras.Input(image_shape)
        maps = layers.Conv2D(8, 3, activation="relu", name="features")(image)
        head = layers.Dense(num_classes, name="logits")
        return keras.Model(image, head(layers.GlobalAveragePooling2D()(maps)))

    @atat.register("dataset", "arrays")
    def arrays():
        return atat.Data((X, Y))

    status, text = commands.run(
        "atat_tf.train",
        "--plugin=my_plugin",
        f"--config={recipe}",
        "--dataset=arrays",
        f"--workdir={tmp_path / 'run'}",
        "--config.num_epochs=1",
        "--config.batch_size=16",
        "--config.backbone.name=pooled",
        "--config.backbone.depth=18",
        "--config.attack.num_steps=1",
        "--config.attack.name=rfgsm",
        "--config.evaluation.attacks=('clean', 'rfgsm')",
    )
    assert status == 0, text
    run = atat.load(tmp_path / "run")
    assert run.config.defense.share == 0.25
    assert {*run.results["accuracy"]} == {"clean", "rfgsm"}
    assert run.results["num_images"] == 4
    # The backbone has no weight decay of its own; the recipe has.
    assert len(run.student.losses) == 2
    assert "rfgsm" in repr(run)


@pytest.mark.parametrize(
    "kind, name, given, message",
    [
        ("atack", "mine", len, "Did you mean 'attack'"),
        ("attack", "mine7", len, "small letters"),
        ("attack", "pgd", len, "a name that no attack has"),
        *(
            ("attack", name, len, "a name that no attack has")
            for name in ("clean", *columns.AUTOATTACK, *columns.PARTS)
        ),
        ("dataset", "digits", len, "a name that no dataset has"),
        ("defense", "mine", len, "a dataclass with needs_attack"),
        ("backbone", "mine", 3, "a function or class"),
    ],
)
def test_refused_names(kind, name, given, message):
    with pytest.raises(InputError, match=message):
        atat.register(kind, name)(given)


def test_other_images_have_another_provenance():
    """So that no verdict on these is taken for one on those."""
    given = [atat.Data((x, Y)).dataset("mine") for x in (X, X, 1 - X)]
    first, same, other = (dataset.provenance for dataset in given)
    assert first == same != other


def test_a_data_set_that_is_none_is_refused():
    atat.register("dataset", "broken")(lambda: 3)
    with pytest.raises(InputError, match="atat.Data of the data set 'broken'"):
        datasets.load("broken")


def test_a_run_is_loaded_from_its_folder():
    """An archived one: its networks, without its images."""
    run = atat.load(runs.ROOT / "results/small/cifar10/atat/seed0")
    assert run.config.defense.name == "atat" and len(run.metrics) == 6
    assert run.student.input_shape == (None, 32, 32, 3)
    assert run.results["accuracy"]["clean"] > 0.3
    assert "clean" in repr(run)
    page = run._repr_html_()
    for word in ("<th>pgd20</th>", "<td>Standard</td>", "<td>ATAT</td>"):
        assert word in page
    with pytest.raises(InputError, match="a run folder with config.json"):
        atat.load("/nowhere")


def test_a_run_says_what_is_estimated():
    assert "autoattack about " in repr(atat.load("reference_small_atat"))


def _npz_of_one_class(folder):
    labels = np.full(len(X), 3)
    pixels = (255 * X).astype(np.uint8)
    pairs = {"x_train": pixels, "y_train": labels}
    np.savez(folder / "one.npz", **pairs, x_test=pixels, y_test=Y)
    return datasets.load(str(folder / "one.npz"))


def _folder_of_one_class(folder):
    (folder / "pictures" / "cat").mkdir(parents=True)
    for i, image in enumerate(X[:4, ..., 0]):
        picture = Image.fromarray((255 * image).astype(np.uint8))
        picture.save(folder / "pictures" / "cat" / f"{i}.png")
    return datasets.load(f"folder:{folder / 'pictures'}")


def _hardened_on_one_class(folder):
    del folder
    return atat.harden(digits.classifier(), X, np.full(len(X), 3), epochs=1)


_SHARES = np.eye(10, dtype=np.float32)[np.full(len(X), 3)]
_OF_ONE_CLASS = {
    "npz": _npz_of_one_class,
    "folder": _folder_of_one_class,
    "harden": _hardened_on_one_class,
    "harden, shares": lambda _: atat.harden(
        digits.classifier(), X, _SHARES, epochs=1
    ),
    "Data": lambda _: atat.Data((X, np.full(len(X), 3))),
    "names": lambda _: atat.Data((X, ["cat"] * len(X))),
}


@pytest.mark.parametrize("made", _OF_ONE_CLASS.values(), ids=_OF_ONE_CLASS)
def test_images_of_one_class_are_refused(made, tmp_path):
    with pytest.raises(InputError, match="nothing to tell apart") as raised:
        made(tmp_path)
    assert re.search("two classes|2 classes", str(raised.value))
