"""The client's command, run as a command against a real gRPC server."""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from absl.testing import absltest, parameterized
from PIL import Image

from serving.client import images, printed
from tests.serving import small_server


def _run(*words, **options):
    """Returns the finished command `python -m serving.client ...`."""
    return subprocess.run(
        [sys.executable, "-m", "serving.client", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def _write_image(path, shade, side=4):
    """Writes an image whose top half has one colour's `shade`."""
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[: side // 2, :, shade] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


class CommandTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        temporary = self.enterContext(tempfile.TemporaryDirectory())
        self.folder = pathlib.Path(temporary)
        self.card = self.folder / "model_card.json"
        self.card.write_text(json.dumps({"class_names": ["ape", "bee", "cow"]}))

    def _ask(self, *words, server=None, **options):
        server = server or small_server.SmallServer()
        with server.running():
            return _run(
                f"--server={server.target}", "--model_name=m", *words, **options
            )

    def _assert_error(self, done, pattern):
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, f"^error: {pattern}\n$")

    def test_reads_a_folder_in_order_and_in_batches(self):
        photos = self.folder / "photos"
        _write_image(photos / "b.PNG", 1)
        _write_image(photos / "a" / "c.png", 2, side=8)
        _write_image(photos / "d.png", 0)
        (photos / "notes.txt").write_text("no image")
        (photos / ".hidden.png").write_text("no image either")
        server = small_server.SmallServer()
        done = self._ask(
            photos,
            "--batch_size=2",
            f"--model_card={self.card}",
            server=server,
            env={"PYTHONIOENCODING": "utf-8"},
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertLen(server.predictions, 2)
        first, second, third, _ = done.stdout.split("\n\n")
        self.assertEqual(
            second,
            f"{photos}/b.PNG: 1 bee\n"
            "  ████████  1 bee  0.999\n"
            "  ████████  0 ape  0.000\n"
            "  ········  2 cow  0.000\n"
            "  ········",
        )
        self.assertStartsWith(first, f"{photos}/a/c.png: 2 cow\n")
        self.assertStartsWith(third, f"{photos}/d.png: 0 ape\n")

    def test_terminal_without_blocks(self):
        _write_image(self.folder / "a.png", 1)
        done = self._ask(
            self.folder / "a.png", env={"PYTHONIOENCODING": "ascii"}
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("class 1\n  @@@@@@@@  class 1  0.999\n", done.stdout)

    def test_json_and_overlays_of_a_chosen_class(self):
        out = self.folder / "out"
        paths = [self.folder / name / "cat.png" for name in ("x", "y")]
        _write_image(paths[0], 0)
        _write_image(paths[1], 2)
        done = self._ask(
            *paths,
            "--json",
            "--class=cow",
            f"--model_card={self.card}",
            f"--overlay={out}",
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        first, second = map(json.loads, done.stdout.splitlines())
        self.assertEqual(
            [first[k] for k in ("file", "class", "name", "label")],
            [str(paths[0]), 0, "ape", 2],
        )
        self.assertEqual(np.array(first["attention"]).tolist(), [[0] * 4] * 4)
        self.assertEqual(second["attention"], [[1] * 4] * 2 + [[0] * 4] * 2)
        self.assertAlmostEqual(sum(second["probabilities"]), 1, delta=1e-6)
        self.assertEqual(
            sorted(p.name for p in out.iterdir()),
            ["cat_attention-2.png", "cat_attention.png"],
        )
        image = images.load(paths[1], (4, 4, 3))
        with Image.open(second["overlay"]) as picture:
            np.testing.assert_array_equal(
                np.asarray(picture),
                images.overlay(image, second["attention"]),
            )

    @pytest.mark.long
    def test_signature_without_attention(self):
        _write_image(self.folder / "a.png", 1)
        words = (self.folder / "a.png", "--signature=predict")
        done = self._ask(*words)
        self.assertIn("class 1\n  class 1  0.999\n", done.stdout)
        out = self.folder / "out"
        self._assert_error(
            self._ask(*words, f"--overlay={out}"),
            "Expected a signature with attention for --overlay. Received: .*",
        )
        self.assertFalse(out.exists())

    def test_shift_of_attention(self):
        _write_image(self.folder / "a.png", 1)
        done = self._ask(self.folder / "a.png", "--signature=monitor", "--json")
        self.assertEqual(json.loads(done.stdout)["attention_shift"], 0.25)

    def test_broken_image_leaves_nothing(self):
        _write_image(self.folder / "a.png", 1)
        broken = self.folder / "b.png"
        broken.write_bytes((self.folder / "a.png").read_bytes()[:-20])
        out = self.folder / "out"
        done = self._ask(self.folder, f"--overlay={out}")
        self._assert_error(
            done,
            f"Expected a whole image file. Received: '{broken}', which is cut "
            "short or broken .*",
        )
        self.assertEqual(done.stdout, "")
        self.assertFalse(out.exists())

    def test_servers_refusals(self):
        _write_image(self.folder / "a.png", 1)
        path = self.folder / "a.png"
        self._assert_error(
            self._ask(path, "--model_name=x"),
            "Expected an answer of localhost:.*. Received: NOT_FOUND: Servable "
            r"not found for request: Latest\(x\)",
        )
        self._assert_error(
            self._ask(path, "--label=3"),
            "Expected a class below 3. Received: --label=3.",
        )

    def test_no_server(self):
        _write_image(self.folder / "a.png", 1)
        target = f"unix:{self.folder}/none"
        done = _run(
            self.folder / "a.png", f"--server={target}", "--timeout=0.5"
        )
        self._assert_error(
            done, f"Expected an answer of {target}. Received: UNAVAILABLE: .*"
        )

    @parameterized.parameters(
        ([], "Expected IMAGE files or folders. Received: none."),
        (["{}/no"], "Expected an image or a folder of them. Received: '.*/no'"),
        (
            ["{}/empty"],
            "Expected a folder with PNG or JPEG files. Received: .*",
        ),
        (["{}", "--class=ape"], "Expected --model_card=PATH with --class.*"),
        (
            ["{}", "--class=ap", "--model_card={}/model_card.json"],
            "Expected a class of the model card, such as ape, .*--class=ap.",
        ),
        (
            ["{}", "--class=ape", "--label=1"],
            "Expected --label or --class. Received: --label=1 and --class=ape.",
        ),
        (
            ["{}", "--label=1", "--signature=predict"],
            "Expected --label and --class without --signature. Received: .*",
        ),
        (
            ["{}", "--model_card={}/none.json"],
            r"Expected a model card with class_names. .* \(No such file .*\).",
        ),
        (
            ["{}", "--version=1", "--version_label=a"],
            "Expected a version or a label. Received: version=1 and label='a'.",
        ),
        (["--tiimeout=3"], "Unknown command line flag 'tiimeout'. Did .*"),
        (["--timeout=0"], "flag --timeout=0: .*"),
    )
    def test_wrong_words(self, words, pattern):
        (self.folder / "empty").mkdir()
        _write_image(self.folder / "a.png", 1)
        self._assert_error(
            _run(*[word.format(self.folder) for word in words]), pattern + ".*"
        )

    def test_help(self):
        done = _run("--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
        self.assertNotIn("tensorflow", done.stderr)
        self.assertNotRegex(done.stderr, r"\| +grpc\n")
        self.assertRegex(done.stderr, r"\| +numpy\n")  # imports are listed
        for text in ("IMAGE...", "probabilities  of every class", "--overlay:"):
            self.assertIn(text, done.stdout)


class OverlayPathsTest(absltest.TestCase):
    def test_no_two_alike_and_no_image_replaced(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        paths = [
            folder / name
            for name in ("cat.png", "cat_attention.png", "Cat.jpg", "b/cat.png")
        ]
        targets = printed.overlay_paths(paths, folder)
        self.assertEqual(
            [target.name for target in targets],
            [
                "cat_attention-2.png",
                "cat_attention_attention.png",
                "Cat_attention-3.png",
                "cat_attention-4.png",
            ],
        )

    def test_without_a_folder(self):
        paths = [pathlib.Path("a.png")] * 2
        self.assertEqual(printed.overlay_paths(paths, None), [None] * 2)


if __name__ == "__main__":
    absltest.main()
