"""The client's command against a real gRPC server."""

import contextlib
import io
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from serving.client import __main__ as command
from serving.client import images, printed
from tests.serving import small_server


def _run(*words, encoding="utf-8"):
    """Returns what the command printed, and what it exited with."""
    output = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
    status = None
    with contextlib.redirect_stdout(output):
        try:
            command.main([str(word) for word in words])
        except SystemExit as error:
            status = error.code
    return output.buffer.getvalue().decode(encoding), status


def _write_image(path, shade, side=4):
    """Writes an image whose top half has one colour's `shade`."""
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[: side // 2, :, shade] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


class CommandTest(small_server.ServerTest):
    def setUp(self):
        super().setUp()
        temporary = self.enterContext(tempfile.TemporaryDirectory())
        self.folder = pathlib.Path(temporary)
        self.card = self.folder / "model_card.json"
        self.card.write_text(json.dumps({"class_names": ["ape", "bee", "cow"]}))

    def _ask(self, *words, **options):
        words = (f"--server={self.server.target}", "--model_name=m", *words)
        return _run(*words, **options)

    def _printed(self, *words, **options):
        output, status = self._ask(*words, **options)
        self.assertIsNone(status)
        return output

    def test_reads_a_folder_in_order_and_in_batches(self):
        photos = self.folder / "photos"
        _write_image(photos / "b.PNG", 1)
        _write_image(photos / "a" / "c.bmp", 2)
        _write_image(photos / "d.png", 0)
        (photos / "notes.txt").write_text("no image")
        (photos / ".hidden.png").write_text("no image either")
        output = self._printed(
            photos, "--batch_size=2", f"--model_card={self.card}"
        )
        self.assertLen(self.server.predictions, 2)
        first, second, third, _ = output.split("\n\n")
        self.assertEqual(
            second,
            f"{photos}/b.PNG: 1 bee\n"
            "  ████████  1 bee  0.999\n"
            "  ████████  0 ape  0.000\n"
            "  ········  2 cow  0.000\n"
            "  ········",
        )
        self.assertStartsWith(first, f"{photos}/a/c.bmp: 2 cow\n")
        self.assertStartsWith(third, f"{photos}/d.png: 0 ape\n")

    def test_terminal_without_blocks(self):
        path = _write_image(self.folder / "a.png", 1)
        output = self._printed(path, encoding="ascii")
        self.assertIn("class 1\n  @@@@@@@@  class 1  0.999\n", output)

    def test_json_and_overlays_of_a_chosen_class(self):
        out = self.folder / "out"
        paths = [
            _write_image(self.folder / name / "cat.png", shade)
            for name, shade in (("x", 0), ("y", 2))
        ]
        output = self._printed(
            *paths,
            "--json",
            "--class=cow",
            f"--model_card={self.card}",
            f"--overlay={out}",
        )
        first, second = map(json.loads, output.splitlines())
        self.assertEqual(
            [first[k] for k in ("file", "class", "name", "label")],
            [str(paths[0]), 0, "ape", 2],
        )
        self.assertEqual(np.array(first["attention"]).tolist(), [[0] * 4] * 4)
        self.assertEqual(second["attention"], [[1] * 4] * 2 + [[0] * 4] * 2)
        self.assertAlmostEqual(sum(second["probabilities"]), 1, delta=1e-6)
        self.assertCountEqual(
            [p.name for p in out.iterdir()],
            ["cat_attention-2.png", "cat_attention.png"],
        )
        image = images.load(paths[1], (4, 4, 3))
        with Image.open(second["overlay"]) as picture:
            np.testing.assert_array_equal(
                np.asarray(picture),
                images.overlay(image, second["attention"]),
            )

    def test_other_signatures(self):
        path = _write_image(self.folder / "a.png", 1)
        output = self._printed(path, "--signature=predict")
        self.assertIn("class 1\n  class 1  0.999\n", output)
        output = self._printed(path, "--signature=monitor", "--json")
        self.assertEqual(json.loads(output)["attention_shift"], 0.25)
        out = self.folder / "out"
        _, status = self._ask(path, "--signature=predict", f"--overlay={out}")
        self.assertRegex(status, "a signature with attention")
        self.assertFalse(out.exists())

    def test_broken_image_leaves_nothing(self):
        whole = _write_image(self.folder / "a.png", 1).read_bytes()
        (self.folder / "b.png").write_bytes(whole[:-30])
        out = self.folder / "out"
        output, status = self._ask(self.folder, f"--overlay={out}")
        self.assertRegex(status, "^error: Expected a whole image.*b.png'")
        self.assertEqual(output, "")
        self.assertFalse(out.exists())

    def test_servers_refusals(self):
        path = _write_image(self.folder / "a.png", 1)
        for words, pattern in (
            (["--model_name=x"], "^error: .* of localhost:.*NOT_FOUND.*x"),
            (["--label=3"], "a class below 3. Received: --label=3"),
            (
                [f"--server=unix:{self.folder}/none", "--timeout=0.3"],
                "unix:.*/none. Received: UNAVAILABLE",
            ),
            (["--server=http://localhost:8501"], "host:port"),
        ):
            _, status = self._ask(path, *words)
            self.assertRegex(status, pattern)

    @parameterized.parameters(
        ([], "IMAGE files or folders. Received: none"),
        (["{}/no"], "an image or a folder of them. Received: '.*/no'"),
        (["{}/empty"], "a folder with image files"),
        (["{}", "--class=ape"], "--model_card=PATH with --class"),
        (
            ["{}", "--class=ap", "--model_card={}/model_card.json"],
            "such as ape, .*--class=ap",
        ),
        (["{}", "--class=ape", "--label=1"], "--label or --class"),
        (["{}", "--label=1", "--signature=predict"], "without --signature"),
        (["{}", "--model_card={}/none.json"], "class_names.*No such file"),
        (["{}", "--version=1", "--version_label=a"], "a version or a label"),
        (["--tiimeout=3"], "--tiimeout=3"),
        (["--timeout=0"], "--timeout: Expected a number from 0.001"),
        (["--batch_size=1.5"], "--batch_size: invalid"),
    )
    def test_wrong_words(self, words, pattern):
        (self.folder / "empty").mkdir()
        _write_image(self.folder / "a.png", 1)
        _, status = _run(*[word.format(self.folder) for word in words])
        self.assertRegex(status, f"^error: .*{pattern}")
        self.assertNotIn("\n", status)

    def test_process_without_tensorflow(self):
        path = _write_image(self.folder / "a.png", 1)
        done = subprocess.run(
            [
                *(sys.executable, "-X", "importtime", "-m", "serving.client"),
                *(f"--server={self.server.target}", "--model_name=m", path),
            ],
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0)
        self.assertIn("class 1", done.stdout)
        listed = {line.split()[-1] for line in done.stderr.splitlines()}
        self.assertIn("grpc", listed)
        unwanted = {"tensorflow", "tensorflow.python", "matplotlib", "atat_tf"}
        self.assertEmpty(listed & unwanted)
        self.assertEqual(  # the imports and nothing else
            {line[:12] for line in done.stderr.splitlines()}, {"import time:"}
        )


class OverlayPathsTest(absltest.TestCase):
    def test_no_two_alike_and_no_image_replaced(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        names = ("cat.png", "cat_attention.png", "Cat.jpg", "b/cat.png")
        targets = printed.overlay_paths([folder / n for n in names], folder)
        self.assertEqual(
            [target.name for target in targets],
            [
                "cat_attention-2.png",
                "cat_attention_attention.png",
                "Cat_attention-3.png",
                "cat_attention-4.png",
            ],
        )


if __name__ == "__main__":
    absltest.main()
