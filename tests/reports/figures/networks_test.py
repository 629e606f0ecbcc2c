"""Networks and pictures to draw, and the sentences about what is not there."""

import dataclasses
import pathlib

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from atat_tf.attacks import linf
from atat_tf.data import datasets
from atat_tf.errors import InputError
from atat_tf.reports.figures import attention as attention_figures
from atat_tf.reports.figures import networks, pictures, selection
from tests.support import toys, untrained_runs


class RunsTest(tf.test.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = pathlib.Path(cls.get_temp_dir(cls()))
        cls.atat = untrained_runs.write(folder / "atat")
        untrained_runs.write(folder / "atat/teacher", "standard", 1)
        cls.at = untrained_runs.write(folder / "at", "at", 2)

    def test_a_run(self):
        network = networks.load(str(self.atat))
        self.assertEqual(network.title, "ATAT tiny")
        self.assertEqual(network.layer, "features")
        self.assertEqual(network.class_names, tuple("0123456789"))
        self.assertEqual(network.image_shape, (32, 32, 3))
        self.assertEqual(network.watermark, "")
        self.assertRegex(network.origin, "atat best sha256:[0-9a-f]{12}$")

    def test_a_runs_maps_are_those_that_its_defense_acts_on(self):
        folder = pathlib.Path(self.get_temp_dir()) / "layers"
        run = str(untrained_runs.write(folder, defense__layers=("hidden",)))
        self.assertEqual(networks.load(run).layer, "hidden")
        self.assertEqual(networks.load(run, layer="features").layer, "features")

    def test_a_run_of_a_defense_that_is_not_here_is_drawn(self):
        folder = pathlib.Path(self.get_temp_dir()) / "plugin"
        path = untrained_runs.write(folder) / "config.json"
        config = path.read_text().replace('"name": "atat"', '"name": "mine"')
        path.write_text(config)
        self.assertEqual(networks.load(str(folder)).layer, "features")

    def test_refusals(self):
        at, folder = str(self.at), self.get_temp_dir()
        for names, arguments, message in (
            ([at], {"layer": "featrues"}, "hidden, .*features.*'featrues'"),
            ([at], {"weights": "bset"}, "Did you mean 'best'"),
            (["ResNet5"], {}, "Did you mean 'ResNet50'"),
            (["none.keras"], {}, "an existing .keras file"),
            ([folder], {}, "run folder with config.json"),
            ([], {}, "at least one network"),
            (["MobileNetV2"], {"weights": "no.h5"}, "--weights=none.*'no.h5'"),
        ):
            with self.assertRaisesRegex(InputError, message):
                networks.load_all(names, **arguments)

    def test_equal_titles_are_told_apart(self):
        name = str(self.at)
        titles = [s.title for s in networks.load_all([name, name])]
        self.assertEqual(titles, [f"AT (mixture) tiny ({name})"] * 2)

    def test_the_raw_network_is_the_standard_one(self):
        atat, at = str(self.atat), str(self.at)
        teacher = str(self.atat / "teacher")
        raw = networks.with_raw
        self.assertEqual(raw([at, atat]), [teacher, at, atat])
        self.assertEqual(raw([at, teacher]), [teacher, at])
        with self.assertRaisesRegex(InputError, "Standard run among"):
            raw([at])

    def test_pictures_of_test_images(self):
        dataset = datasets.load("digits")
        (picture,) = pictures.from_test(dataset, [5])
        self.assertAllEqual(picture.pixels, dataset.test.images[5])
        self.assertEqual(picture.class_name, str(dataset.test.labels[5]))
        self.assertEqual(picture.at((16, 16, 1)).shape, (16, 16, 1))
        with self.assertRaisesRegex(InputError, "from 0 to 359.*index=360"):
            pictures.from_test(dataset, [360])

    def test_first_right_pictures_are_right_for_every_network(self):
        dataset = datasets.load("digits")
        loaded = networks.load_all([str(self.atat), str(self.at)])
        images = dataset.test.images / np.float32(255)
        right = [
            np.argmax(network.classifier(images, training=False), -1)
            == dataset.test.labels
            for network in loaded
        ]
        for network, of_one in zip(loaded, right, strict=True):
            shown, _ = selection.selected([network], dataset, 2)
            indices = [picture.index for picture in shown]
            self.assertEqual(indices, np.flatnonzero(of_one)[:2].tolist())
        self.assertFalse(np.any(np.all(right, 0)))
        with self.assertRaisesRegex(InputError, "all networks"):
            selection.selected(loaded, dataset, 2)

    def test_selections_are_made_among_the_right_ones_and_told(self):
        dataset = datasets.load("digits")
        (network,) = networks.load_all([str(self.at)])
        attack = linf.pgd(16 / 255, 8 / 255, 3)
        chosen, captions = {}, set()
        for how in selection.SELECTIONS:
            shown, caption = selection.selected(
                [network], dataset, 3, how, attack
            )
            chosen[how] = shown
            captions.add(caption)
            numbers = ", ".join(str(picture.index) for picture in shown)
            self.assertIn(f"Test images {numbers} of ", caption)
            self.assertLen(shown, 3)
        self.assertLen(captions, len(selection.SELECTIONS))
        setting = attention_figures.Setting(16 / 255, 8 / 255, 3)
        rows = {
            how: attention_figures.shift([network], shown, setting)[1]
            for how, shown in chosen.items()
        }
        for how, of_one in rows.items():
            for row in of_one:
                self.assertEqual(row["clean_prediction"], row["label"], how)
        for row in rows["broken"]:
            self.assertNotEqual(row["attacked_prediction"], row["label"])
        moved = [row["cosine_distance"] for row in rows["moved"]]
        self.assertEqual(moved, sorted(moved, reverse=True))
        for how in ("first", "broken", "random"):
            largest = max(row["cosine_distance"] for row in rows[how])
            self.assertGreaterEqual(moved[0] + 1e-6, largest)
        other = dataclasses.replace(network, title="other", class_names=("a",))
        _, caption = selection.selected([other], dataset, 2)
        self.assertStartsWith(caption, "The first test images. Test images 0")
        with self.assertRaisesRegex(InputError, "--select among broken"):
            selection.selected([network], dataset, 3, "best")


class OthersTest(tf.test.TestCase):
    def test_an_application_reads_pixels_from_0_to_1(self):
        network = networks.load("MobileNetV2", "none")
        self.assertEqual(network.watermark, "untrained")
        self.assertEqual(network.title, "MobileNetV2")
        self.assertEqual(network.image_shape, (224, 224, 3))
        images = np.random.default_rng(0).uniform(size=(1, 224, 224, 3))
        logits = network.classifier(images.astype(np.float32))
        # The same weights under Keras' own preprocessing of 0..255.
        bare = keras.applications.MobileNetV2(
            weights=None, classifier_activation=None
        )
        bare.set_weights(network.classifier.get_weights())
        prepared = keras.applications.mobilenet_v2.preprocess_input(
            255 * images.astype(np.float32)
        )
        self.assertAllClose(logits, bare(prepared), 1e-4, 1e-5)

    def test_a_keras_file_takes_the_classes_of_the_data(self):
        path = str(pathlib.Path(self.get_temp_dir()) / "toy.keras")
        toys.small_classifier().save(path)
        (network,) = networks.load_all([path])
        self.assertEqual(network.class_names[1], "class 1")
        spec = datasets.Spec(5, toys.IMAGE_SHAPE)
        empty = datasets.Split(np.zeros((0, *toys.IMAGE_SHAPE)), np.zeros(0))
        data = datasets.Dataset("", spec, tuple("abcde"), "", *[empty] * 3)
        (named,) = networks.with_classes([network], data)
        self.assertEqual(named.class_names, tuple("abcde"))
        with self.assertRaisesRegex(InputError, "--images, --dataset or a run"):
            pictures.load_dataset(network)

    def test_pictures_of_files_at_each_networks_size(self):
        path = pathlib.Path(self.get_temp_dir()) / "a.png"
        Image.new("L", (20, 30), 7).save(path)
        (picture,) = pictures.from_files([path])
        self.assertIsNone(picture.class_name)
        self.assertAllEqual(picture.at((8, 8, 3)), np.full((8, 8, 3), 7))
        self.assertEqual(picture.preview().shape, (224, 224, 3))
