"""Exported models and running servers that the serving tests share."""

import contextlib
import functools
import http.client
import pathlib
import shutil
import tempfile

import keras
import numpy as np
import tensorflow as tf

from serving.saved_model import writing
from serving.server import config_files
from serving.server import flags as server_flags
from serving.server import server as server_lib
from tests.support import loops, shared, toys

ROOT = pathlib.Path(__file__).parents[2]
# A trained run and its teacher, small enough to lie in the repository.
RUN = ROOT / "results/small/cifar10/atat/seed0"
TEACHER = ROOT / "results/small/cifar10/standard/seed0"


def exported():
    """Returns the version folder of RUN's export; not to be changed."""
    export = functools.partial(writing.export_run, RUN)
    return shared.folder("atat", export) / "1"


def exported_toy():
    """Returns the version folder of a tiny model: [8, 8, 3] -> 5 classes."""
    return shared.folder("toy", _export_toy) / "1"


def _export_toy(folder):
    file = folder.with_name("toy.keras")
    toys.small_classifier(norm=False).save(file)
    writing.export_model(file, folder)


def temporary_folder(test):
    """Returns a new folder that goes with the test."""
    folder = tempfile.mkdtemp()
    test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


def copy_version(source, models, number):
    """Copies a version below a folder of versions, at once and whole."""
    target = pathlib.Path(models) / str(number)
    temporary = target.with_name(f".{number}.copy")
    shutil.copytree(source, temporary)
    temporary.rename(target)
    return target


@contextlib.contextmanager
def serving(*words):
    """Yields a started Server, with free ports of loopback.

    Args:
      *words: flags as on the command line; without any that name models, the
        export of RUN is served as "atat".
    """
    named = any(w.startswith(("--model_base", "--model_config")) for w in words)
    if not named:
        base = exported().parent
        words = (f"--model_base_path={base}", "--model_name=atat", *words)
    flags, unknown = server_flags.parse([*words, "--port=8500"])
    if unknown:
        raise ValueError(unknown)
    files = config_files.read_all(flags)

    async def made():
        return server_lib.Server(flags, files)

    with loops.running() as do:
        server = do(made()).result()
        try:
            do(server.start(any_port=True)).result()
            yield server
        finally:
            do(server.stop(5.0)).result()


def http_call(port, verb, path, body=None, headers=()):
    """Returns status, headers and bytes of the answer on a port of loopback."""
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    ) as connection:
        connection.request(verb, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def test_images(count, shape=(32, 32, 3), seed=0):
    """Returns float32 [count, *shape] in [0, 1], multiples of 1/255."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape))
    return (pixels / 255.0).astype(np.float32)


def keras_classifier(ending="softmax"):
    """Returns a small Keras model as a person might save it."""
    return keras.Sequential(
        [
            keras.Input((12, 10, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", name="maps"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation=ending),
        ]
    )


def save_numbers(folder, offset=2.0):
    """Saves a model of a few numbers in the way of TensorFlow 1.

    Its signatures: "serving_default" (x -> y = x / 2 + offset), "two" (x, z ->
    a = x + z, b = x - z), "twins" (x -> y and the same as w), "total" (x -> y,
    a mere number) and "count" (n -> n, counted up from 0 one by one).

    Args:
      folder: the version's, which must not exist.
      offset: tells versions apart.
    """
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, None], name="x")
        z = v1.placeholder(tf.float32, [None, None], name="z")
        n = v1.placeholder(tf.int32, [None], name="n")
        counted = tf.while_loop(
            lambda i: tf.reduce_any(i < n), lambda i: (i + 1,), (n * 0,)
        )[0]
        y = x / 2 + offset
        signatures = {
            "serving_default": ({"x": x}, {"y": y}),
            "twins": ({"x": x}, {"y": y, "w": y}),
            "two": ({"x": x, "z": z}, {"a": x + z, "b": x - z}),
            "total": ({"x": x}, {"y": tf.reduce_sum(x)}),
            "count": ({"n": n}, {"n": counted}),
        }
        writer = v1.saved_model.Builder(str(folder))
        writer.add_meta_graph_and_variables(
            session,
            ["serve"],
            {
                name: v1.saved_model.predict_signature_def(*sides)
                for name, sides in signatures.items()
            },
        )
        writer.save()


def answer(loaded, signature_name, **inputs):
    """Returns {output: array} of a signature of a loaded Servable."""
    signature = loaded.signatures[signature_name]
    outputs = sorted(signature.outputs)
    values = loaded.run(
        {signature.inputs[k].name: v for k, v in inputs.items()},
        [signature.outputs[o].name for o in outputs],
    )
    return dict(zip(outputs, values, strict=True))
