"""The commands as a person types them: help, words, one-sentence errors."""

import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized

_ROOT = pathlib.Path(__file__).parents[2]


def _run(*words, cwd=_ROOT):
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


class HelpTest(parameterized.TestCase):
    @parameterized.parameters("atat_tf.train", "atat_tf.evaluate")
    def test_names_the_shared_flags(self, module):
        status, output, _ = _run(module, "--help")
        self.assertEqual(status, 1)  # absl's own convention
        for flag in ("workdir", "data_dir", "config", "dataset", "seed"):
            self.assertIn(f"--{flag}:", output)

    def test_does_not_load_tensorflow(self):
        program = (
            "import sys; from atat_tf import train, evaluate, reproduce; "
            "sys.exit('tensorflow' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=_ROOT, check=False
        )
        self.assertEqual(done.returncode, 0)


class ErrorsTest(parameterized.TestCase):
    def _assert_error(self, pattern, *words):
        status, output, errors = _run(*words)
        self.assertEqual(status, 1, output + errors)
        self.assertRegex(errors.strip(), "^error: .*" + pattern)
        self.assertLen(errors.strip().splitlines(), 1)

    @parameterized.parameters(
        (["--config.defence.name=at"], "Did you mean 'defense'"),
        (["--config.defense.nam=at"], "config.defense among.*'name'"),
        (["--config.seed.x=1"], "a field of config.seed"),
        (["--config=nope.py"], "Received: --config=nope.py"),
        (["--config", "nope.py"], "Received: --config=nope.py"),
        (["--config=configs/small.py:aat"], "Received: 'aat'"),
        (["--config.num_epochs=many"], "many"),
        (["--config.attack.epsilon=8/0"], "a radius above 0.*'8/0'"),
        (["--wrokdir=x"], "wrokdir.*Did you mean: workdir"),
        (["--seed=-1"], "seed"),
        (["words"], "flags only.*'words'"),
        (["--data_dir=/nowhere"], "existing folder.*'/nowhere'"),
        (
            ["--dataset=digits", "--config.dataset=cifar10"],
            "one value of dataset",
        ),
        (["--seed=1", "--config.seed=2"], "one value of seed"),
    )
    def test_before_tensorflow_is_loaded(self, words, pattern):
        self._assert_error(pattern, "atat_tf.train", *words)

    @parameterized.parameters(
        ([], "--workdir=RUN_FOLDER"),
        (["--workdir=/nowhere"], "run folder with config.json"),
        (
            ["--workdir=/nowhere", "--checklist", "--attacks=fgsm"],
            "--checklist without --attacks",
        ),
        (
            ["--workdir=/nowhere", "--checklist", "--bn_eval=batch"],
            "bn_eval=frozen with --checklist",
        ),
        (
            ["--workdir=/nowhere", "--checklist", "--save_adversarials=a.npz"],
            "--checklist without --save_adversarials",
        ),
        (
            ["--workdir=/a,/b", "--save_adversarials=a.npz"],
            "one --workdir with --save_adversarials",
        ),
    )
    def test_evaluate(self, words, pattern):
        self._assert_error(pattern, "atat_tf.evaluate", *words)

    @parameterized.parameters(
        ([], "--table=1, 2, ablation, protocol or shift"),
        (["--table=3"], "a table among .*'3'"),
        (["--table=1", "--scale=smal"], "Did you mean 'small'"),
        (["--table=1", "--rows=attat"], "Did you mean 'atat'"),
        (["--table=1", "--seed=1"], "no --seed: .*--seeds decide"),
        (["--table=1", "--seeds=two"], "seeds"),
        (["--table=1", "--seeds=0", "--rows=at"], "seeds >= 1"),
    )
    def test_reproduce(self, words, pattern):
        self._assert_error(pattern, "atat_tf.reproduce", *words)

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
        folder = tempfile.mkdtemp()
        program = (
            f"import sys; sys.path.insert(0, {str(_ROOT)!r}); "
            "sys.argv = ['train', '--dataset=digits', '--config.seed=-1']; "
            "from atat_tf import train; "
            "from atat_tf.runs import command_line; "
            "command_line.run(train.main)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertIn("seed in [0, 2**31)", done.stderr, done.stdout)


if __name__ == "__main__":
    absltest.main()
