"""The commands as a person types them: help, words, one-sentence errors."""

import contextlib
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from tests.support import commands


class HelpTest(parameterized.TestCase):
    def test_radii_are_shown_as_people_write_them(self):
        _, output = commands.run("atat_tf.inspect_attention", "-h")
        self.assertIn("(default: 8/255)", output)

    def test_the_fields_of_a_recipe(self):
        status, output = commands.run(
            "atat_tf.train", "--config=small:at", "--fields"
        )
        self.assertEqual(status, 0)
        self.assertIn("--config.backbone.depth=10", output)
        self.assertIn("--config.attack.epsilon=8/255", output)
        self.assertIn("L_ce; 0.5 is the mean over the mixture", output)


class ErrorsTest(parameterized.TestCase):
    def _assert_error(self, pattern, *words):
        status, output = commands.run(*words)
        self.assertEqual(status, 1, output)
        self.assertRegex(output, "^error: .*" + pattern)
        self.assertLen(output.splitlines(), 1)

    @parameterized.parameters(
        (["--config.defence.name=at"], "Did you mean 'defense'"),
        (["--config.defense.nam=at"], "config.defense among.*'name'"),
        (["--config.seed.x=1"], "a field of config.seed"),
        (["--config=nope.py"], "Received: --config=nope.py"),
        (["--config", "nope.py"], "Received: --config=nope.py"),
        (["--config=configs/small.py:aat"], "Received: 'aat'"),
        (["--config=at:aat"], "without a variant.*'at:aat'"),
        (["--config=atta"], "a recipe or .* Python file.*Did you mean 'atat'"),
        (["--config=tests/support/__init__.py"], "a function get_config"),
        (["--config.num_epochs=many"], "many"),
        (["--config.attack.epsilon=8/0"], "a radius above 0.*'8/0'"),
        (["--config.attack.epsilon", "306/255"], "epsilon in .*epsilon=1.2"),
        (["--config.teacher=1/2"], "'1/2'"),
        (["--wrokdir=x"], "wrokdir.*Did you mean: workdir"),
        (["--seed=-1"], "seed"),
        (["--seed=2147483648"], "seed.*2147483647"),
        (["words"], "flags only.*'words'"),
        (["--data_dir=/nowhere"], "existing folder.*'/nowhere'"),
        (
            ["--dataset=digits", "--config.dataset=cifar10"],
            "one value of dataset",
        ),
        (["--seed=1", "--config.seed=2"], "one value of seed"),
    )
    def test_train(self, words, pattern):
        self._assert_error(pattern, "atat_tf.train", *words)

    @parameterized.parameters(
        ([], "--workdir=RUN_FOLDER"),
        (["--workdir=/nowhere"], "run folder with config.json"),
        (
            ["--workdir=/nowhere", "--checklist", "--attacks=fgsm"],
            "no --attacks for a checklist",
        ),
        (
            ["--workdir=/nowhere", "--checklist", "--bn_eval=batch"],
            "no --bn_eval for a checklist",
        ),
        (
            ["--workdir=/nowhere", "--checklist", "--save_adversarials=a.npz"],
            "no --save_adversarials for a checklist",
        ),
        (
            ["--workdirs=/a,/b", "--save_adversarials=a.npz"],
            "one --workdir with --save_adversarials",
        ),
        (["--workdir=/nowhere", "--precision=0"], "above 0 and below 50"),
        (["--workdir=/nowhere", "--precision=50"], "precision=50.0"),
        (["--workdir=/nowhere", "--precision=nan"], "precision=nan"),
        (["--workdir=/nowhere", "--shard=3"], "a shard as 3/16"),
        (["--workdir=/nowhere", "--num_images=0"], "num_images=0"),
    )
    def test_evaluate(self, words, pattern):
        self._assert_error(pattern, "atat_tf.evaluate", *words)

    def test_archive(self):
        self._assert_error(
            "run folder with config.json", "atat_tf.archive", "--workdir=/no"
        )

    def test_train_refuses_in_one_sentence_and_makes_no_folder(self):
        folder = pathlib.Path(tempfile.mkdtemp()) / "run"
        self._assert_error(
            "Did you mean 'atat'",
            "atat_tf.train",
            f"--workdir={folder}",
            "--config.defense.name=atta",
        )
        self.assertFalse(folder.exists())


class ElsewhereTest(absltest.TestCase):
    def test_the_default_recipe_is_found_from_any_folder(self):
        words = "--dataset=digits", "--config.seed=-1"
        with contextlib.chdir(tempfile.mkdtemp()):
            _, output = commands.run("atat_tf.train", *words)
        self.assertIn("seed in [0, 2**31)", output)
