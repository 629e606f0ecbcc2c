"""Asks a server what it sees on images, and where it looked.

    atat client --server=localhost:8500 --model_name=atat IMAGE...

An IMAGE is a PNG, JPEG, BMP, GIF or WebP file, or a folder of them and of more
folders. For each one the class, the most probable classes and a map of the
model's attention are printed. Where the terminal has colours the map lies over
the image, elsewhere the denser a cell, the more the model looked there.

With --json a line for each image instead, an object of
  file           path, as found
  class          number of the predicted class
  name           its name; null where neither model nor --model_card tell it
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

import argparse
import difflib
import io
import json
import os
import pathlib
import sys
from collections.abc import Callable

from . import calls as client_calls
from . import images, printed
from .client import Client
from .errors import ServingError, expect

_DEFAULT = "(default: %(default)s)"


def main(argv: list[str] | None = None) -> None:
    """Runs the command.

    Args:
      argv: of the command line; None for those of the process.

    Raises:
      SystemExit: with a sentence, if something went wrong.
    """
    options = _parser().parse_intermixed_args(argv)
    # File names may hold what the terminal cannot show.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        _ask(options)
        sys.stdout.flush()
    except ServingError as error:
        sys.exit(f"error: {_sentence(error, options)}")
    except BrokenPipeError:  # as under `head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        sys.exit(f"error: {_one_line(error)}")
    except KeyboardInterrupt:
        sys.exit(130)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        sys.exit(f"error: {_one_line(message)} (--help lists the flags)")


def _parser():
    parser = _Parser(
        "atat client",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    flag = parser.add_argument
    flag("images", nargs="*", metavar="IMAGE", help="file or folder")
    flag(
        "--server",
        default="localhost:8500",
        help=f"host:port, or unix:PATH of a socket {_DEFAULT}",
    )
    flag(
        "--model_name",
        default="atat",
        help=f"the model, as the server names it {_DEFAULT}",
    )
    flag("--version", type=_at_least(0, int), help="ask this version")
    flag("--version_label", help="ask the version of this label")
    flag(
        "--signature",
        default="serving_default",
        help=f"ask this signature {_DEFAULT}",
    )
    flag(
        "--timeout",
        type=_at_least(0.001, float),
        default=10.0,
        help="seconds that a batch may take, attempts to reach the server "
        f"included {_DEFAULT}",
    )
    flag(
        "--batch_size",
        type=_at_least(1, int),
        default=64,
        help=f"images in a request {_DEFAULT}",
    )
    flag(
        "--model_card",
        help="model_card.json with class names (default: the model's own)",
    )
    flag("--label", type=_at_least(0, int), help="show this class's attention")
    flag(
        "--class",
        dest="class_name",
        help="the same by its name",
    )
    flag("--overlay", help="folder for PNG pictures: image, attention over it")
    flag("--json", action="store_true", help="print JSON, one line an image")
    flag("--ca", help="PEM file of the authorities to trust; turns TLS on")
    flag("--certificate", help="PEM file of the client's own certificate")
    flag("--key", help="PEM file of its key")
    flag("--server_name", help="name in the server's certificate, if another")
    return parser


def _at_least(lowest: float, kind: type) -> Callable[[str], float]:
    def number(word):
        value = kind(word)
        if value < lowest:
            raise argparse.ArgumentTypeError(
                f"Expected a number from {lowest}. Received: {word}."
            )
        return value

    return number


def _ask(options):
    """Prints the answers, and writes the overlays, for files and folders."""
    paths = _image_paths(options.images)
    names = _class_names(options.model_card)
    _check_class_flags(options)
    overlays = printed.overlay_paths(paths, options.overlay)
    # A server that is not there is waited for.
    what = f"{len(paths):,} image{'s'[: len(paths) > 1]}"
    print(f"asking {options.server} about {what} ...", file=sys.stderr)
    with _connected(options) as client:
        metadata = client.metadata()
        names = names or client.class_names()
        label = _label(options, names)
        signature = client_calls.signature(metadata, options.signature)
        image_shape = _image_shape(metadata, signature)
        size = options.batch_size
        for start in range(0, len(paths), size):
            batch = slice(start, start + size)
            batch_images = [images.load(p, image_shape) for p in paths[batch]]
            answer = _answer(
                client, options, signature, paths[batch], batch_images, label
            )
            _check_answer(answer, names, options.overlay)
            results = printed.results(answer, paths[batch], names, label)
            printed.write(results, batch_images, overlays[batch], names)
            printed.show(results, batch_images, names, options.json)


def _connected(options):
    return Client(
        options.server,
        options.model_name,
        version=options.version,
        label=options.version_label,
        timeout=options.timeout,
        max_batch_size=options.batch_size,
        ca=options.ca,
        certificate=options.certificate,
        key=options.key,
        server_name=options.server_name,
    )


def _image_paths(names):
    """Returns the images that files and folders name, folders sorted."""
    expect(names, "IMAGE files or folders", "none")
    paths = []
    for name in names:
        path = pathlib.Path(name)
        files = [path]
        if path.is_dir():
            files = [
                p
                for p in sorted(path.rglob("*"))
                if p.suffix.lower() in images.SUFFIXES
                and p.is_file()
                and not p.name.startswith(".")
            ]
            expect(files, "a folder with image files", repr(name))
        expect(path.exists(), "an image or a folder of them", repr(name))
        paths += files
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
        is_list = False
        reason = str(getattr(error, "strerror", None) or error)
    rule = "a model card with class_names"
    expect(is_list, rule, f"{model_card!r} ({reason})")
    return [str(name) for name in names]


def _check_class_flags(options):
    label, name = options.label, options.class_name
    expect(
        label is None or name is None,
        "--label or --class",
        f"--label={label} and --class={name}",
    )
    expect(
        label is name is None or options.signature == "serving_default",
        "--label and --class without --signature",
        f"--signature={options.signature}",
    )


def _label(options, names):
    """Returns the number of the class to look at, or None for the predicted."""
    name = options.class_name
    if name is None:
        return options.label
    expect(
        names,
        "--model_card=PATH with --class, for a model that names no classes",
        f"--class={name}",
    )
    near = difflib.get_close_matches(name, names, 3, 0) or names[:3]
    rule = f"a class of the model, such as {', '.join(near)}"
    expect(name in names, rule, f"--class={name}")
    return names.index(name)


def _image_shape(metadata, signature):
    """Returns (H, W, C) of the images that the model takes."""
    default = metadata.signatures.get("serving_default", signature)
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
        return client.call(options.signature, {"image_bytes": files})
    return client.predict(batch_images, signature=options.signature)


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


def _sentence(error, options):
    """Returns "Expected ... Received: ..." of a ServingError."""
    if error.message.startswith("Expected"):
        return _one_line(error.message)
    sentence = (
        f"Expected an answer of {options.server}. Received: {error.code}: "
        f"{_one_line(error.message)}"
    )
    if error.code == "NOT_FOUND":
        sentence += (
            f" (--model_name={options.model_name} was asked for: it names the "
            "model as the server does)"
        )
    return sentence


def _one_line(error):
    return " ".join(str(error).split())


if __name__ == "__main__":
    main()
