"""The demo page: its answers, its bounds, and what it refuses."""

import base64
import io
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import zlib

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from atat_tf.data import datasets
from atat_tf.errors import InputError
from serving.demo_page import (
    answers,
    application,
    drawings,
    networks,
    page,
    samples,
)
from tests.serving import demo_runs, exports
from tests.support import commands, pictures, toys

_ROOT = pathlib.Path(__file__).parents[2]


def _pixels(uri):
    """Returns the pixels of a data URI, as numbers that can be subtracted."""
    content = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)), np.float64)


def _bomb(side):
    """Returns a PNG of few bytes that says it has side x side pixels."""
    rows = pictures.chunk(b"IDAT", zlib.compress(bytes(10**6)))
    end = pictures.chunk(b"IEND", b"")
    return pictures.png_head(side, side) + rows + end


class AnswersTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.demo, _, self.samples = demo_runs.demo()

    @parameterized.parameters(1, 16)
    def test_the_attack_stays_within_its_radius_and_uses_it(self, epsilon):
        for seen in self.demo.answer(self.samples[3], epsilon):
            clean = _pixels(seen["clean"]["image"])
            attacked = _pixels(seen["attacked"]["image"])
            added = attacked - clean
            # ε is a whole number of levels, and so is nearly every pixel.
            self.assertEqual(np.abs(added).max(), epsilon)
            # Half of the range is nothing, and ε the whole of it.
            magnified = 127.5 + 127.5 * added / epsilon
            shown = _pixels(seen["attacked"]["added"])
            half_a_level = 127.5 / (2 * epsilon) + 1
            np.testing.assert_allclose(shown, magnified, 0, half_a_level)

    def test_without_a_radius_nothing_changes(self):
        for seen in self.demo.answer(self.samples[0], 0):
            attacked = dict(seen["attacked"])
            added = _pixels(attacked.pop("added"))
            self.assertEqual(attacked, seen["clean"])
            self.assertBetween(added.min(), 127, added.max())
            self.assertLessEqual(added.max(), 128)
            self.assertAlmostEqual(seen["shift"], 0)  # 1 − cos, rounded
            self.assertNotEqual(seen["kind"], "broken")

    def test_attention_and_verdicts_are_those_of_the_networks(self):
        found = [
            network
            for sample in self.samples
            for epsilon in (1, 16)
            for network in self.demo.answer(sample, epsilon)
        ]
        kinds = [seen["kind"] for seen in found]
        self.assertContainsSubset({"broken", "stands"}, kinds)
        for seen in found:
            (before, most), (_, less), *_ = seen["clean"]["classes"]
            after = seen["attacked"]["classes"][0][0]
            self.assertGreaterEqual(most, less)
            changed = before != after
            if seen["kind"] != "wrong":
                self.assertEqual(seen["kind"] == "broken", changed)
                self.assertEqual(seen["explained"], before)
            self.assertBetween(seen["shift"], 0, 1)
        self.assertGreater(max(seen["shift"] for seen in found), 0.001)

    def test_another_class_has_another_map_on_the_same_attack(self):
        own = self.demo.answer(self.samples[3], 8)
        other = self.demo.answer(self.samples[3], 8, "7")
        for seen, its in zip(own, other, strict=True):
            self.assertEqual((seen["explained"], its["explained"]), ("3", "7"))
            for side in ("clean", "attacked"):
                same, maps = (
                    [entry[side][part] for entry in (seen, its)]
                    for part in ("image", "map")
                )
                self.assertEqual(*same)
                self.assertNotEqual(*maps)

    def test_an_unknown_class_is_the_predicted_one(self):
        sample = samples.Sample("mine", None, self.samples[3].pixels)
        for seen in self.demo.answer(sample, 16, "no class of theirs"):
            self.assertEqual(seen["explained"], seen["clean"]["classes"][0][0])
            self.assertIn(seen["kind"], ("broken", "stands"))

    def test_the_page_begins_with_a_picture_that_all_have_right(self):
        place = self.demo.first(self.samples)
        for seen in self.demo.answer(self.samples[place], 0):
            self.assertEqual(seen["kind"], "stands")
        nobody = samples.Sample(
            "mine", "no class of theirs", toys.random_bytes(1)[0]
        )
        wrong = samples.Sample("wrong", "9", self.samples[3].pixels)
        self.assertEqual(self.demo.first([wrong, nobody]), 1)

    def test_verdicts(self):
        verdict = answers.verdict
        self.assertEqual(verdict("a", "a", "a"), ("stands", "still a"))
        self.assertEqual(verdict("a", "a", "b"), ("broken", "a became b"))
        kind, words = verdict("a", "b", "a")
        self.assertEqual((kind, words[-3:]), ("wrong", ": b"))


class NetworksTest(absltest.TestCase):
    def test_a_model_of_its_own_range_is_shown_drawings(self):
        folder = exports.temporary_folder(self)
        toys.small_classifier(norm=False).save(folder / "mine.keras")
        (network,) = networks.load_all([], str(folder / "mine.keras"))
        self.assertEqual(network.image_shape, toys.IMAGE_SHAPE)
        self.assertEqual(network.class_names[-1], "class 4")
        about, offered = samples.offered([network])
        self.assertIn("Drawings", about)
        self.assertLen(offered, len(drawings.drawn()))
        (seen,) = answers.Demo([network], 1).answer(offered[0], 16)
        self.assertEqual(_pixels(seen["clean"]["image"]).shape, (8, 8, 3))
        text = str(folder / "mine.keras")
        (dark,) = networks.load_all([], text, (0.0, 255.0))
        pixels = toys.random_images(2)
        np.testing.assert_allclose(
            dark.classifier(pixels), network.classifier(255 * pixels), 1e-4
        )

    def test_runs_of_one_method_are_told_apart(self):
        workdir = demo_runs.workdirs()[0]
        titles = [n.title for n in networks.load_all([workdir, workdir])]
        self.assertEqual(titles, ["Standard 1", "Standard 2"])

    def test_too_many_or_none_are_refused(self):
        for count in (0, 5):
            with self.assertRaisesRegex(InputError, "1 to 4 networks"):
                networks.load_all(["nowhere"] * count)

    def test_samples_are_the_first_of_each_class(self):
        dataset = datasets.load("digits")
        shown = samples.test_images(dataset)
        self.assertEqual(
            [sample.class_name for sample in shown], list("0123456789")
        )
        first = np.flatnonzero(dataset.test.labels == 5)[0]
        self.assertEqual(shown[5].name, f"test image {first}: 5")
        np.testing.assert_array_equal(
            shown[5].pixels, dataset.test.images[first]
        )

    def test_without_data_nothing_is_downloaded(self):
        empty = str(exports.temporary_folder(self))
        loaded = networks.load_all([str(exports.RUN)], data_dir=empty)
        about, _ = samples.offered(loaded)
        self.assertIn("Drawings", about)
        self.assertEmpty([*pathlib.Path(empty).iterdir()])
        self.assertRegex(loaded[0].about, "38 % of 10,000 .*PGD.20. 26 %")

    def test_drawings_differ(self):
        drawn = [*drawings.drawn().values()]
        for i, one in enumerate(drawn):
            self.assertEqual((one.shape, one.dtype), ((256, 256, 3), np.uint8))
            for other in drawn[:i]:
                self.assertGreater(np.mean(one != other), 0.2)


class ServedTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.port = cls.enterClassContext(demo_runs.serving())

    def _call(self, method, path, body=None, headers=()):
        return exports.http_call(self.port, method, path, body, headers)

    def _refusal(self, path, body=None, headers=()):
        """Returns the status and the sentence of a question."""
        status, _, text = self._call("POST", path, body, headers)
        sentence = json.loads(text)["error"]
        self.assertNotIn("\n", sentence)
        self.assertNotIn("<", sentence)
        return status, sentence

    def _expect_answers(self):
        status, _, text = self._call("POST", "/answer?epsilon=8&sample=3")
        self.assertEqual(status, 200)
        self.assertLen(json.loads(text)["networks"], 2)

    def test_the_page_and_its_files(self):
        for path, kind in (
            ("/", "text/html"),
            ("/page.css", "text/css"),
            ("/page.js", "text/javascript"),
        ):
            status, headers, text = self._call("GET", path)
            self.assertEqual(status, 200)
            self.assertStartsWith(headers["content-type"], kind)
            self.assertGreater(len(text), 1000)
            policy = headers["content-security-policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertNotIn("access-control-allow-origin", headers)
        self.assertEqual(self._call("GET", "/page.py")[0], 404)
        self.assertEqual(self._call("GET", "/answer")[0], 405)

    def test_a_sent_picture_is_answered_as_the_same_sample(self):
        _, _, offered = demo_runs.demo()
        content = pictures.file(offered[3].pixels)
        _, _, sent = self._call(
            "POST", "/answer?epsilon=8&name=cat.jpg", content
        )
        _, _, chosen = self._call("POST", "/answer?epsilon=8&sample=3")
        pairs = zip(
            json.loads(sent)["networks"],
            json.loads(chosen)["networks"],
            strict=True,
        )
        for its, own in pairs:
            self.assertEqual(its["clean"]["image"], own["clean"]["image"])
            self.assertEqual(its["clean"]["classes"], own["clean"]["classes"])

    @parameterized.parameters(
        ("/answer?epsilon=3&sample=0", "epsilon among 0, 1, 2, 4, 8, 16"),
        ("/answer?sample=0", "epsilon among"),
        ("/answer?epsilon=8&sample=10", "a sample from 0 to 9"),
        ("/answer?epsilon=8&sample=-1", "a sample from 0 to 9"),
        (f"/answer?epsilon=8&sample={'9' * 6000}", "a sample from 0 to 9"),
        ("/answer?epsilon=8&sample=%C2%B2", "a sample from 0 to 9"),
        ("/answer?epsilon=8&sample=0&explained=zebra", "class of one of"),
        ("/answer?epsilon=8", "a sample or a picture"),
    )
    def test_questions_that_are_none(self, path, rule):
        status, sentence = self._refusal(path)
        self.assertEqual(status, 400)
        self.assertRegex(sentence, f"^Expected .*{rule}.* Received: ")
        self._expect_answers()

    @parameterized.parameters(
        (b"no picture", "PNG, JPEG, BMP, GIF or WebP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "PNG, JPEG"),
        (
            pictures.file(np.zeros((64, 64, 3), np.uint8))[:70],
            "whole image file",
        ),
        (_bomb(30_000), "whole image file.*900000000 pixels"),
        (_bomb(10_000), "at most 16777216 pixels"),
        (
            pictures.file(np.zeros((4097, 4096), np.uint8)),
            "at most 16777216 pixels",
        ),
    )
    def test_pictures_that_are_none(self, content, rule):
        status, sentence = self._refusal(
            "/answer?epsilon=8&name=cat.jpg", content
        )
        self.assertEqual(status, 400)
        self.assertStartsWith(sentence, "Expected ")
        self.assertIn("'cat.jpg'", sentence)
        self.assertRegex(sentence, rule)
        self._expect_answers()

    def test_too_many_bytes_are_refused_with_a_sentence(self):
        for declared in ("100000000", "9" * 400):
            with socket.create_connection(("127.0.0.1", self.port)) as client:
                head = "POST /answer?epsilon=8 HTTP/1.1\r\nHost: localhost\r\n"
                head += f"Content-Length: {declared}\r\n\r\n"
                client.sendall(head.encode())
                client.settimeout(30)
                answered = client.recv(2**16)
            self.assertRegex(answered, b"^HTTP/1.1 4(13|00) ")
        most = application.MOST_BYTES
        for parts in (iter([bytes(2**20)] * 7), bytes(most + 2**20)):
            status, sentence = self._refusal("/answer?epsilon=8", parts)
            self.assertEqual(status, 413)
            self.assertIn("at most 4 MiB", sentence)
        self._expect_answers()

    @parameterized.parameters(
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("192.168.0.1", 400),
        ("", 400),
        ("localhost", 200),
        ("127.0.0.1:8600", 200),
    )
    def test_only_loopback_names_are_answered(self, host, expected):
        for method, path in (
            ("GET", "/"),
            ("POST", "/answer?epsilon=0&sample=0"),
        ):
            status, *_ = self._call(method, path, headers={"Host": host})
            self.assertEqual(status, expected)

    def test_other_sites_are_refused(self):
        path = "/answer?epsilon=0&sample=0"
        own = f"http://127.0.0.1:{self.port}"
        self.assertEqual(
            self._call("POST", path, headers={"Origin": own})[0], 200
        )
        others = (
            "https://evil.example",
            "null",
            "http://127.0.0.1:1",
            "http://[",
        )
        for origin in others:
            status, _ = self._refusal(path, headers={"Origin": origin})
            self.assertEqual(status, 403)

    def test_questions_beyond_those_that_wait_are_refused(self):
        slow = []
        head = b"POST /answer?epsilon=0 HTTP/1.1\r\nHost: localhost\r\n"
        for _ in range(application.MOST_WAITING + 1):
            client = socket.create_connection(("127.0.0.1", self.port))
            self.addCleanup(client.close)
            client.sendall(head + b"Content-Length: 9\r\n\r\n")
            slow.append(client)
        deadline = time.monotonic() + 8  # their bodies may come until then
        status = 0
        while status != 503 and time.monotonic() < deadline:
            status, _, text = self._call("POST", "/answer?epsilon=0&sample=0")
        self.assertEqual(status, 503)
        self.assertIn("Try again", json.loads(text)["error"])
        for client in slow:
            client.close()
        while status != 200 and time.monotonic() < deadline + 60:
            status, *_ = self._call("POST", "/answer?epsilon=0&sample=0")
        self.assertEqual(status, 200)


class ExportTest(absltest.TestCase):
    def test_one_file_has_all_answers(self):
        demo, about, offered = demo_runs.demo()
        text = page.exported(demo, about, offered)
        self.assertLess(len(text.encode()), 1.5 * 2**20)
        (saved,) = re.findall(
            r'<script type="application/json" id="answers">(.*?)</script>',
            text,
            re.DOTALL,
        )
        saved = json.loads(saved)
        self.assertLen(saved, len(offered))
        self.assertEqual([*saved[0]], ["0", "1", "2", "4", "8", "16"])
        for seen, expected in zip(
            saved[3]["8"], demo.answer(offered[3], 8), strict=True
        ):
            self.assertEqual(seen["attacked"], expected["attacked"])
            self.assertEqual(seen["words"], expected["words"])
        self.assertEqual(
            saved[3]["0"][1]["clean"], demo.answer(offered[3], 8)[1]["clean"]
        )
        self.assertEmpty(re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text))


class CommandTest(absltest.TestCase):
    def test_a_port_in_use_is_refused_at_once(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            status, printed = commands.run("serving.demo", f"--port={port}")
        self.assertEqual(status, 1)
        self.assertRegex(
            printed, rf"^error: Expected a free port.*:{port} .*\n$"
        )

    def test_without_networks_beside_it_it_says_what_to_do(self):
        folder = exports.temporary_folder(self)
        for name in ("atat_tf", "configs", "serving"):
            shutil.copytree(_ROOT / name, folder / name)
        done = subprocess.run(
            [sys.executable, "-m", "serving.demo"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            done.stderr, r"^error: Expected --workdirs=.*atat train.*\n$"
        )
