"""Run folders of tiny networks with random weights, for which none trains."""

import keras

from atat_tf.data import datasets
from atat_tf.runs import build
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from tests.support import runs, toys


def write(workdir, method="atat", seed=0, **overrides):
    """Writes a run folder with config.json and best weights; returns its path.

    Args:
      workdir: the folder.
      method: as for `runs.config`.
      seed: of the weights.
      **overrides: as for `runs.config`.
    """
    workdir = run_folder.create(workdir)
    config = run_config.resolve(runs.config(method, **overrides))
    classifier = build.build_classifier(config, datasets.spec(config.dataset))
    toys.randomise(classifier, seed)
    # Logits of random weights lean to one class: less bias, more classes.
    head = classifier.get_layer("logits")
    dataset = datasets.load(config.dataset)
    some = dataset.test.images[:200].astype("float32") / 255
    mean = keras.ops.mean(classifier(some, training=False), axis=0)
    head.bias.assign_sub(mean)
    run_folder.write_json(workdir / "config.json", run_config.to_dict(config))
    run_folder.save_weights(workdir, "best", classifier)
    return workdir
