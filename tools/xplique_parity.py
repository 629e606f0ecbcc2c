"""Compares deletion and insertion with xplique's on an archived network.

  PYTHONPATH=. python tools/xplique_parity.py --data_dir=../shared/tfds

It needs xplique and what that imports, beside this project's requirements and
not among them: pip install --target=FOLDER --no-deps xplique==2.0.2
opencv-python-headless scikit-image tensorflow-probability tf-keras dm-tree
cloudpickle decorator lazy-loader networkx imageio tifffile, and FOLDER at the
end of PYTHONPATH.
"""

import numpy as np
import tensorflow as tf
from absl import flags

from atat_tf.errors import InputError
from atat_tf.evaluation.attention import explanations, views
from atat_tf.evaluation.run import Run
from atat_tf.runs import command_line

for _name in ("workdir", "data_dir"):
    flags.declare_key_flag(_name)
_WORKDIR = "results/small/cifar10/madry/seed0"
_NUM_IMAGES = flags.DEFINE_integer("num_images", 32, "test images", 1)


def main(argv: list[str]) -> None:
    del argv
    run = Run(command_line.workdir(_WORKDIR), command_line.data_dir())
    try:
        from xplique import metrics
    except ModuleNotFoundError as error:
        raise InputError(
            "Expected xplique and what it imports (the head of this file says "
            f"how). Received: no module {error.name}."
        ) from error
    split = run.dataset.test.take(_NUM_IMAGES.value)
    images, labels = split.images / np.float32(255), split.labels
    classifier = run.classifier()
    maps = views.Viewer(classifier, "features").view(images, labels).maps
    large = tf.image.resize(maps[..., None], images.shape[1:3])[..., 0]

    def probabilities(seen):
        return tf.nn.softmax(classifier(seen, training=False)).numpy()

    targets = np.eye(run.spec.num_classes, dtype=np.float32)[labels]
    for theirs, ours in (
        (metrics.Deletion, explanations.deletion),
        (metrics.Insertion, explanations.insertion),
    ):
        metric = theirs(
            probabilities,
            images,
            targets,
            batch_size=len(images),
            baseline_mode=0.0,
            steps=explanations.STEPS,
        )
        mine = np.mean(ours(probabilities, maps, images, labels))
        print(f"{theirs.__name__}: {mine:.4f}, xplique {metric(large):.4f}")


if __name__ == "__main__":
    command_line.run(main, recipes=False)
