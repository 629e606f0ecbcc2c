"""The client's command against a real gRPC server."""

import contextlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
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


@pytest.fixture
def ask(server):
    """ask(*words): the command's output and status, with the server named."""

    def asked(*words, **options):
        named = f"--server={server.target}", "--model_name=m"
        return _run(*named, *words, **options)

    return asked


@pytest.fixture
def card(tmp_path):
    """The flag of a model card of three classes."""
    path = tmp_path / "model_card.json"
    path.write_text(json.dumps({"class_names": ["ape", "bee", "cow"]}))
    return f"--model_card={path}"


def _write_image(path, shade):
    """Writes an image whose top half has one colour's `shade`."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2, :, shade] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_reads_a_folder_in_order_and_in_batches(ask, card, server, tmp_path):
    photos = tmp_path / "photos"
    _write_image(photos / "b.PNG", 1)
    _write_image(photos / "a" / "c.bmp", 2)
    _write_image(photos / "d.png", 0)
    (photos / "notes.txt").write_text("no image")
    (photos / ".hidden.png").write_text("no image either")
    output, status = ask(photos, "--batch_size=2", card)
    assert status is None
    assert len(server.predictions) == 2
    first, second, third, _ = output.split("\n\n")
    assert second == (
        f"{photos}/b.PNG: 1 bee\n"
        "  ████████  1 bee  0.999\n"
        "  ████████  0 ape  0.000\n"
        "  ········  2 cow  0.000\n"
        "  ········"
    )
    assert first.startswith(f"{photos}/a/c.bmp: 2 cow\n")
    assert third.startswith(f"{photos}/d.png: 0 ape\n")


def test_names_of_the_model_itself(ask, server, tmp_path):
    server.signatures["about"] = small_server.ABOUT
    path = _write_image(tmp_path / "a.png", 0)
    output, _ = ask(path, "--json", "--class=cöw")
    result = json.loads(output)
    assert (result["name"], result["label"]) == ("ape", 2)


@pytest.mark.parametrize(
    ("environment", "is_terminal", "expected"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, True, 2**24),
        ({"TERM": "xterm-256color"}, True, 256),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, True, 0),
        ({"TERM": "xterm-256color"}, False, 0),
        ({"TERM": "dumb"}, True, 0),
    ],
)
def test_colours_of_terminals(environment, is_terminal, expected):
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    stream.isatty = lambda: is_terminal
    assert printed.colours(stream, environment) == expected


def test_names_do_not_command_the_terminal(capsys):
    result = {
        "file": "x\x1b]0;owned\x07.png",
        "class": 0,
        "label": 0,
        "probabilities": [0.9, 0.1],
        "attention": None,
    }
    names = ["\x1b[2Jcat\nfake.png: 1 dog", "é"]
    printed.show([result], [None], names, as_json=False)
    text = capsys.readouterr().out
    assert {one for one in text if not one.isprintable()} == {"\n"}
    assert "\nfake" not in text and "1 é" in text


def test_a_terminal_of_colours_has_the_picture(server, tmp_path):
    """The command itself, on a terminal of its own."""
    path = _write_image(tmp_path / "a.png", 1)
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "serving.client"]
        + [f"--server={server.target}", "--model_name=m", str(path)],
        stdout=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLORTERM": ""},
    ):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 2**16):
                shown += part
    os.close(ours)
    assert b"class 1  0.999" in shown
    # 24 dots by 24, an upper half each two, in two pictures.
    assert shown.decode().count("▀") == 2 * 24 * 12


def test_terminal_without_blocks(ask, tmp_path):
    path = _write_image(tmp_path / "a.png", 1)
    output, _ = ask(path, encoding="ascii")
    assert "class 1\n  @@@@@@@@  class 1  0.999\n" in output


def test_json_and_overlays_of_a_chosen_class(ask, card, tmp_path):
    out = tmp_path / "out"
    ape = _write_image(tmp_path / "x" / "cat.png", 0)
    cow = _write_image(tmp_path / "y" / "cat.png", 2)
    output, _ = ask(ape, cow, "--json", "--class=cow", card, f"--overlay={out}")
    first, second = map(json.loads, output.splitlines())
    fields = ("file", "class", "name", "label")
    assert [first[k] for k in fields] == [str(ape), 0, "ape", 2]
    assert first["attention"] == [[0] * 4] * 4
    assert second["attention"] == [[1] * 4] * 2 + [[0] * 4] * 2
    assert sum(second["probabilities"]) == pytest.approx(1)
    assert {path.name for path in out.iterdir()} == {
        "cat_attention.png",
        "cat_attention-2.png",
    }
    image = images.load(cow, (4, 4, 3))
    with Image.open(second["overlay"]) as picture:
        np.testing.assert_array_equal(
            np.asarray(picture),
            images.overlay(
                image,
                second["attention"],
                ["2 cow, 100 %", "attention of 2 cow"],
            ),
        )


def test_other_signatures(ask, tmp_path):
    path = _write_image(tmp_path / "a.png", 1)
    output, _ = ask(path, "--signature=predict")
    assert "class 1\n  class 1  0.999\n" in output
    output, _ = ask(path, "--signature=monitor", "--json")
    assert json.loads(output)["attention_shift"] == 0.25
    out = tmp_path / "out"
    _, status = ask(path, "--signature=predict", f"--overlay={out}")
    assert "a signature with attention" in status
    assert not out.exists()


def test_broken_image_leaves_nothing(ask, tmp_path):
    whole = _write_image(tmp_path / "a.png", 1).read_bytes()
    (tmp_path / "b.png").write_bytes(whole[:-30])
    out = tmp_path / "out"
    output, status = ask(tmp_path, f"--overlay={out}")
    assert status.startswith("error: Expected a whole image")
    assert "b.png" in status
    assert output == ""
    assert not out.exists()


@pytest.mark.parametrize(
    ("word", "reasons"),
    [
        ("--model_name=x", ["localhost", "NOT_FOUND", "--model_name=x was"]),
        ("--label=3", ["a class below 3", "--label=3"]),
        ("--class=ape", ["--model_card=PATH with --class"]),
        ("--server=unix:/none", ["unix:/none", "UNAVAILABLE"]),
        ("--server=http://localhost:8501", ["host:port"]),
    ],
)
def test_servers_refusals(ask, tmp_path, word, reasons):
    path = _write_image(tmp_path / "a.png", 1)
    _, status = ask(path, "--timeout=0.5", word)
    for reason in ["error: Expected", *reasons]:
        assert reason in status


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "IMAGE files or folders. Received: none"),
        (["{}/no"], "an image or a folder of them"),
        (["{}/empty"], "a folder with image files"),
        (["{}", "--class=ape", "--label=1"], "--label or --class"),
        (["{}", "--label=1", "--signature=predict"], "without --signature"),
        (["{}", "--model_card={}/none.json"], "No such file"),
        (["{}", "--version=1", "--version_label=a"], "a version or a label"),
        (["--tiimeout=3"], "--tiimeout=3"),
        (["--timeout=0"], "--timeout: Expected a number from 0.001"),
        (["--batch_size=1.5"], "--batch_size: invalid"),
    ],
)
def test_wrong_words(card, tmp_path, words, reason):
    (tmp_path / "empty").mkdir()
    _write_image(tmp_path / "a.png", 1)
    _, status = _run(*[word.format(tmp_path) for word in words])
    assert status.startswith("error: ")
    assert reason in status
    assert "\n" not in status


def test_process_without_tensorflow(server, tmp_path):
    path = _write_image(tmp_path / "a.png", 1)
    done = subprocess.run(
        [
            *(sys.executable, "-X", "importtime", "-m", "serving.client"),
            *(f"--server={server.target}", "--model_name=m", path),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "class 1" in done.stdout
    asking = f"asking {server.target} about 1 image ..."
    lines = [x for x in done.stderr.splitlines() if x != asking]
    assert all(line.startswith("import time:") for line in lines)
    listed = {line.split()[-1] for line in lines}
    assert "grpc" in listed
    unwanted = {"tensorflow", "tensorflow.python", "matplotlib", "atat_tf"}
    assert not listed & unwanted


def test_no_two_overlays_alike_and_no_image_replaced(tmp_path):
    names = ("cat.png", "cat_attention.png", "Cat.jpg", "b/cat.png")
    targets = printed.overlay_paths([tmp_path / n for n in names], tmp_path)
    assert [target.name for target in targets] == [
        "cat_attention-2.png",
        "cat_attention_attention.png",
        "Cat_attention-3.png",
        "cat_attention-4.png",
    ]
