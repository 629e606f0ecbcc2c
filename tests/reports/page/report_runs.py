"""A run on digits for the report's tests: made in seconds, not trained.

Its features are random and its last layer is a least-squares fit, which is
right on most images, and which attacks break on many.
"""

import numpy as np

from atat_tf.data import datasets
from atat_tf.evaluation import evaluate_run
from atat_tf.models import graphs
from atat_tf.runs import build
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from tests.support import runs, shared

# Radii at which some images stand and some break.
COLUMNS = ("clean", "fgsm@0.5/255", "pgd3@1/255")
NUM_IMAGES = 40
# A name that a page must escape, in text and in an attribute.
FOLDER = 'a run & <b>"its"<b>'


def evaluated():
    """Returns the folder of a run with teacher, metrics, results and ledger.

    Not to be changed.
    """
    return shared.folder("evaluated", _evaluate) / FOLDER


def _evaluate(folder):
    workdir = folder / FOLDER
    config = run_config.resolve(
        runs.config("atat", backbone__name="wide_resnet")
    )
    write_weights(workdir, config, seed=0)
    write_weights(workdir / "teacher", run_config.teacher_config(config), 1)
    names = ("train_loss", "validation_clean_accuracy", "learning_rate")
    rows = [
        {"epoch": epoch, "step": 5 * epoch}
        | {name: 1 / (epoch + place) for place, name in enumerate(names)}
        for epoch in (1, 2, 3)
    ]
    run_folder.write_metrics(workdir, rows)
    evaluate_run.evaluate_run(workdir, list(COLUMNS), NUM_IMAGES)


def write_weights(workdir, config, seed):
    """Makes a run folder of config.json and best.weights.h5."""
    run_folder.create(workdir)
    values = run_config.to_dict(config)
    run_folder.write_json(workdir / run_folder.CONFIG, values)
    dataset = datasets.load("digits")
    classifier = build.build_classifier(config, dataset.spec)
    generator = np.random.default_rng(seed)
    for weight in classifier.weights:
        if weight.name == "kernel":
            scale = np.sqrt(2 / np.prod(weight.shape[:-1]))
            weight.assign(scale * generator.normal(size=weight.shape))
    train = dataset.train.take(400)
    images = train.images / np.float32(255)
    features = graphs.with_taps(classifier, ["features"])(images)["features"]
    pooled = np.mean(features, axis=(1, 2))
    inputs = np.concatenate([pooled, np.ones((len(pooled), 1))], axis=1)
    targets = 5 * np.eye(10)[train.labels]
    fitted = np.linalg.lstsq(inputs, targets, rcond=1e-4)[0]
    classifier.get_layer("logits").set_weights([fitted[:-1], fitted[-1]])
    run_folder.save_weights(workdir, "best", classifier)
