"""The peers' own attacks behind one signature, in the peers' environment.

A peer is made from its name, rebuilds a Wide ResNet from {path: array}, and
returns attacks: functions of float32 images [b, H, W, C] in [0, 1] and int64
labels [b] to adversarial images of the same form. All share ε in ℓ∞.

The TensorFlow peers get the Keras model as one compiled function, the PyTorch
ones a model without gradients of its weights, channels last: the fastest forms
found. Every model is in inference mode.
"""

import functools
import importlib.metadata
from collections.abc import Callable

import numpy as np

_BOX = 0.0, 1.0
# Of images and labels, to adversarial images.
Attack = Callable[[np.ndarray, np.ndarray], np.ndarray]


class TensorFlowPeer:
    """What TensorFlow's peers share: the Keras model, compiled."""

    distributions = ("tensorflow", "keras")

    def __init__(self):
        import tensorflow as tf

        from atat_tf.models import wide_resnet

        self._tf, self._models = tf, wide_resnet
        self._import()
        self.versions = versions(self.distributions)

    def load(self, weights: dict[str, np.ndarray]) -> None:
        depth, width, shape, num_classes = _architecture(weights)
        model = self._models.wide_resnet(shape, num_classes, depth, width)
        for variable in model.variables:
            variable.assign(weights[variable.path])
        self._num_classes, self._shape = num_classes, shape
        self._model = model
        compiled = self._tf.function(
            lambda images: model(images, training=False),
            reduce_retracing=True,
            autograph=False,
        )
        # ART says whether it trains, as a Keras model is told.
        self._logits = lambda images, training=False: compiled(images)

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self._logits(self._tf.constant(images)).numpy()

    def attack(self, name: str, **arguments: float) -> Attack:
        return getattr(self, name)(**arguments)


class CleverHans(TensorFlowPeer):
    """projected_gradient_descent of cleverhans.tf2."""

    distributions = ("cleverhans", *TensorFlowPeer.distributions)

    def _import(self):
        from cleverhans.tf2.attacks import projected_gradient_descent

        self._pgd = projected_gradient_descent.projected_gradient_descent

    def pgd(
        self,
        epsilon: float,
        step_size: float,
        num_steps: int,
        random_start: bool,
    ) -> Attack:
        def attack(images, labels):
            return self._pgd(
                self._logits,
                self._tf.constant(images),
                epsilon,
                step_size,
                num_steps,
                np.inf,
                clip_min=_BOX[0],
                clip_max=_BOX[1],
                y=self._tf.constant(labels),
                rand_init=random_start,
            ).numpy()

        return attack


class Foolbox(TensorFlowPeer):
    """LinfPGD on a TensorFlowModel."""

    distributions = ("foolbox", *TensorFlowPeer.distributions)

    def _import(self):
        import foolbox

        self._foolbox = foolbox

    def pgd(
        self,
        epsilon: float,
        step_size: float,
        num_steps: int,
        random_start: bool,
    ) -> Attack:
        model = self._foolbox.TensorFlowModel(self._logits, _BOX, "/CPU:0")
        pgd = self._foolbox.attacks.LinfPGD(
            abs_stepsize=step_size, steps=num_steps, random_start=random_start
        )

        def attack(images, labels):
            # Not `pgd(model, ...)`, which forwards again to judge.
            return pgd.run(
                model,
                self._tf.constant(images),
                self._foolbox.criteria.Misclassification(
                    self._tf.constant(labels)
                ),
                epsilon=epsilon,
            ).numpy()

        return attack


class Art(TensorFlowPeer):
    """ProjectedGradientDescent and AutoAttack on a TensorFlowV2Classifier."""

    distributions = (
        "adversarial-robustness-toolbox",
        *TensorFlowPeer.distributions,
    )

    def _import(self):
        from art.attacks import evasion
        from art.estimators import classification

        self._evasion, self._classification = evasion, classification

    def _classifier(self, **arguments):
        loss = self._tf.keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="sum"
        )
        return self._classification.TensorFlowV2Classifier(
            self._logits,
            self._num_classes,
            self._shape,
            loss_object=loss,
            clip_values=_BOX,
            **arguments,
        )

    def pgd(
        self,
        epsilon: float,
        step_size: float,
        num_steps: int,
        random_start: bool,
    ) -> Attack:
        pgd = self._evasion.ProjectedGradientDescentTensorFlowV2(
            self._classifier(),
            np.inf,
            epsilon,
            step_size,
            max_iter=num_steps,
            num_random_init=int(random_start),
            batch_size=2**20,
            verbose=False,
        )
        return pgd.generate

    def autoattack(self, epsilon: float) -> Attack:
        attack = self._evasion.AutoAttack(
            self._classifier(), np.inf, epsilon, batch_size=2**20
        )
        return attack.generate


class Torchattacks:
    """PGD and the parts of AutoAttack; `steps` and `n_queries` as in ours.

    torchattacks' own AutoAttack runs its parts with 10 steps and not with 100,
    seeds from the clock, and targets every wrong class where the original
    targets nine at most: so the parts are called one by one.
    """

    distributions = ("torchattacks", "torch")

    def __init__(self):
        import torch
        import torchattacks

        from benchmarks.peers import torch_models

        self._torch, self._attacks = torch, torchattacks
        self._models = torch_models
        self.versions = versions(self.distributions)

    def load(self, weights: dict[str, np.ndarray]) -> None:
        network = self._models.wide_resnet(weights)
        last = self._torch.channels_last
        self._network = network.to(memory_format=last)
        self._num_classes = weights["logits/bias"].shape[0]

    def logits(self, images: np.ndarray) -> np.ndarray:
        with self._torch.no_grad():
            return self._network(self._images(images)).numpy()

    def attack(self, name: str, **arguments: float) -> Attack:
        attack = getattr(self, name)(**arguments)

        def attacked(images, labels):
            given = self._images(images), self._torch.from_numpy(labels)
            adversarial = attack(*given).detach().numpy()
            return np.ascontiguousarray(adversarial.transpose(0, 2, 3, 1))

        return attacked

    def _images(self, images):
        # Channels first in memory too: FAB asks for it.
        channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return self._torch.from_numpy(channels_first)

    def pgd(
        self,
        epsilon: float,
        step_size: float,
        num_steps: int,
        random_start: bool,
    ) -> Callable:
        return self._attacks.PGD(
            self._network, epsilon, step_size, num_steps, random_start
        )

    def apgd_ce(self, epsilon: float, num_steps: int) -> Callable:
        return self._attacks.APGD(
            self._network, "Linf", epsilon, num_steps, loss="ce"
        )

    def apgd_t(self, epsilon: float, num_steps: int) -> Callable:
        return self._attacks.APGDT(
            self._network,
            "Linf",
            epsilon,
            num_steps,
            n_classes=min(self._num_classes, 10),
        )

    def fab_t(self, epsilon: float, num_steps: int) -> Callable:
        return self._attacks.FAB(
            self._network,
            "Linf",
            epsilon,
            num_steps,
            multi_targeted=True,
            n_classes=min(self._num_classes, 10),
        )

    def square(self, epsilon: float, num_steps: int) -> Callable:
        return self._attacks.Square(self._network, "Linf", epsilon, num_steps)


PEERS = {
    "cleverhans": CleverHans,
    "foolbox": Foolbox,
    "art": Art,
    "torchattacks": Torchattacks,
}


@functools.cache
def versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Returns {distribution: version}."""
    return {name: importlib.metadata.version(name) for name in distributions}


def _architecture(weights):
    """Returns depth, width, image shape and number of classes."""
    units = sum(
        path.startswith("group0_") and path.endswith("_conv1/kernel")
        for path in weights
    )
    features, num_classes = weights["logits/kernel"].shape
    channels = weights["stem/kernel"].shape[2]
    # CIFAR's size: a Wide ResNet's weights do not tell it.
    return 6 * units + 4, features // 64, (32, 32, channels), num_classes
