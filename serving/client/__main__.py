"""Asks a server what it sees on images, and where it looked.

    python -m serving.client --server=localhost:8500 --model_name=atat IMAGE...

An IMAGE is a PNG or JPEG file, or a folder of them and of more folders. For
each one the class, the most probable classes and a map of the model's
attention are printed: the denser a cell, the more the model looked there.

With --json a line for each image instead, an object of
  file           path, as found
  class          number of the predicted class
  name           its name; null without --model_card
  probabilities  of every class, a list
  label          number of the class whose attention follows
  attention      rows of numbers from 0 to 1; null if the signature has none
  overlay        path of the picture that --overlay wrote, or null
and attention_shift, a number, with --signature=monitor.

Images are read and sent in batches, and a batch is printed when it is
answered. What goes wrong is said in one sentence on the standard error, and
the exit code is 1.

In programs: `from serving.client import Client`, or AsyncClient.
"""

import contextlib
import difflib
import json
import os
import pathlib
import sys
import tempfile

from . import calls as client_calls
from . import images, printed
from .client import Client
from .errors import ServingError, expect

_SUFFIXES = (".png", ".jpg", ".jpeg")


def main():
    """Runs the command."""
    # absl.app defines flags of its own where it is imported.
    from absl import app, flags

    _define_flags(flags)
    app.run(_guarded, flags_parser=_parsed)


def _define_flags(flags):
    text, whole = flags.DEFINE_string, flags.DEFINE_integer
    text("server", "localhost:8500", "host:port, or unix:PATH of a socket")
    text("model_name", "atat", "the model, as the server names it")
    whole("version", None, "ask this version", lower_bound=0)
    text("version_label", None, "ask the version of this label")
    text("signature", "serving_default", "ask this signature")
    flags.DEFINE_float(
        "timeout",
        10.0,
        "seconds that a batch may take, attempts to reach the server included",
        lower_bound=0.001,
    )
    whole("batch_size", 64, "images in a request", lower_bound=1)
    text("model_card", None, "model_card.json of the version: class names")
    whole("label", None, "show the attention of this class", lower_bound=0)
    text("class", None, "the same by its name; needs --model_card")
    text("overlay", None, "folder for PNG pictures: image, attention over it")
    flags.DEFINE_bool("json", False, "print JSON, one line an image")
    text("ca", None, "PEM file of the authorities to trust; turns TLS on")
    text("certificate", None, "PEM file of the client's own certificate")
    text("key", None, "PEM file of its key")
    text("server_name", None, "name in the server's certificate, if another")


def _parsed(argv):
    from absl import flags

    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {_one_line(error)} (--help lists the flags)")


def _guarded(argv):
    from absl import flags

    # File names may hold what the terminal cannot show.
    sys.stdout.reconfigure(errors="backslashreplace")
    options = {name: flags.FLAGS[name].value for name in flags.FLAGS}
    try:
        _ask(options, argv[1:])
        sys.stdout.flush()
    except ServingError as error:
        sys.exit(f"error: {_sentence(error, options['server'])}")
    except BrokenPipeError:  # as under `head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (images.ImageError, OSError) as error:
        sys.exit(f"error: {_one_line(error)}")
    except KeyboardInterrupt:
        sys.exit(130)


def _ask(options, words):
    """Prints the answers, and writes the overlays, for files and folders."""
    paths = _image_paths(words)
    names = _class_names(options["model_card"])
    label = _label(options, names)
    overlays = printed.overlay_paths(paths, options["overlay"])
    with _connected(options) as client:
        described = client.metadata()
        signature = client_calls.signature(described, options["signature"])
        image_shape = _image_shape(described, signature)
        size = options["batch_size"]
        for start in range(0, len(paths), size):
            batch = slice(start, start + size)
            batch_images = [images.load(p, image_shape) for p in paths[batch]]
            answer = _answer(
                client, options, signature, paths[batch], batch_images, label
            )
            _check_answer(answer, names, options["overlay"])
            results = printed.results(answer, paths[batch], names, label)
            printed.write(results, batch_images, overlays[batch])
            printed.show(results, names, options["json"])


def _connected(options):
    with _quiet_start():
        return Client(
            options["server"],
            options["model_name"],
            version=options["version"],
            label=options["version_label"],
            timeout=options["timeout"],
            max_batch_size=options["batch_size"],
            ca=options["ca"],
            certificate=options["certificate"],
            key=options["key"],
            server_name=options["server_name"],
        )


def _image_paths(words):
    """Returns the images that files and folders name, folders sorted."""
    expect(words, "IMAGE files or folders", "none")
    paths = []
    for word in words:
        path = pathlib.Path(word)
        found = [path]
        if path.is_dir():
            found = [
                p
                for p in sorted(path.rglob("*"))
                if p.suffix.lower() in _SUFFIXES
                and p.is_file()
                and not p.name.startswith(".")
            ]
            expect(found, "a folder with PNG or JPEG files", repr(word))
        expect(path.exists(), "an image or a folder of them", repr(word))
        paths += found
    return paths


def _class_names(model_card):
    """Returns the class names in a model card, or None without one."""
    if not model_card:
        return None
    try:
        card = json.loads(pathlib.Path(model_card).read_text())
        names = card["class_names"]
        is_list = isinstance(names, list) and names
        reason = "class_names is no list"
    except (OSError, ValueError, KeyError, TypeError) as error:
        is_list, reason = False, getattr(error, "strerror", None) or error
    rule = "a model card with class_names"
    expect(is_list, rule, f"{model_card!r} ({reason})")
    return [str(name) for name in names]


def _label(options, names):
    """Returns the number of the class to look at, or None for the predicted."""
    label, name = options["label"], options["class"]
    chosen = label is not None or name is not None
    expect(
        label is None or name is None,
        "--label or --class",
        f"--label={label} and --class={name}",
    )
    expect(
        not chosen or options["signature"] == "serving_default",
        "--label and --class without --signature",
        f"--signature={options['signature']}",
    )
    if name is None:
        return label
    expect(names, "--model_card=PATH with --class", f"--class={name}")
    near = difflib.get_close_matches(name, names, 3, 0) or names[:3]
    rule = f"a class of the model card, such as {', '.join(near)}"
    expect(name in names, rule, f"--class={name}")
    return names.index(name)


@contextlib.contextmanager
def _quiet_start():
    """Keeps off the screen what TensorFlow says while it is imported.

    Its libraries write to the file descriptor. If the import fails, what was
    held back is printed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except ImportError:
            held_back.seek(0)
            os.write(screen, held_back.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)


def _image_shape(described, signature):
    """Returns (H, W, C) of the images that the model takes."""
    default = described.signatures.get("serving_default", signature)
    spec = signature.inputs.get("images", default.inputs.get("images"))
    shape = spec and spec.shape
    expect(
        shape and len(shape) == 4 and min(shape[1:]) > 0,
        "a model of images [n, height, width, channels]",
        f"a model of {spec or ', '.join(signature.inputs)}",
    )
    return shape[1:]


def _answer(client, options, signature, paths, batch_images, label):
    """Returns {output: array [n, ...]} of a batch."""
    if label is not None:
        answer = client.predict(batch_images, signature="predict")
        count = answer["probabilities"].shape[1]
        expect(label < count, f"a class below {count}", f"--label={label}")
        labels = [label] * len(paths)
        return {**client.explain(batch_images, labels, ["attention"]), **answer}
    if "image_bytes" in signature.inputs:
        files = [path.read_bytes() for path in paths]
        return client.call(options["signature"], {"image_bytes": files})
    return client.predict(batch_images, signature=options["signature"])


def _check_answer(answer, names, overlay):
    for output in ("classes", "probabilities"):
        expect(output in answer, f"an output {output!r}", ", ".join(answer))
    expect(
        not overlay or "attention" in answer,
        "a signature with attention for --overlay",
        ", ".join(answer),
    )
    count = answer["probabilities"].shape[1]
    expect(
        names is None or len(names) == count,
        f"a model card of {count} classes",
        f"one of {len(names or ())}",
    )


def _sentence(error, server):
    """Returns "Expected ... Received: ..." of a ServingError."""
    if error.message.startswith("Expected"):
        return _one_line(error.message)
    return (
        f"Expected an answer of {server}. Received: {error.code}: "
        f"{_one_line(error.message)}"
    )


def _one_line(error):
    return " ".join(str(error).split())


if __name__ == "__main__":
    main()
