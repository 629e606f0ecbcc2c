"""The peers' adversarial training, a step at a time, in their environment.

A peer is made from its name and rebuilds a Wide ResNet from {path: array}.
`prepare` compiles what it can; then `step` takes float32 images [b, H, W, C]
in [0, 1] and int64 labels [b], and returns the loss on the adversarial ones.
All train on adversarial images only (Madry et al. 2018): PGD in ℓ∞ from the
image itself on the network in inference mode, then one step of SGD with
momentum on the network in training mode, without weight decay.
"""

import numpy as np

from benchmarks.peers import attacks as peer_attacks

_MOMENTUM = 0.9
_BOX = 0.0, 1.0


class _TensorFlowTraining:
    """The update that CleverHans' tutorial and ART's default write alike."""

    def _update(self, learning_rate):
        tf, model = self._tf, self._model
        loss_object = tf.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = tf.optimizers.SGD(learning_rate, _MOMENTUM)
        optimizer.build(model.trainable_variables)

        @tf.function
        def update(images, labels):
            with tf.GradientTape() as tape:
                loss = loss_object(labels, model(images, training=True))
            variables = model.trainable_variables
            gradients = tape.gradient(loss, variables)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return loss

        return update


class CleverHans(_TensorFlowTraining, peer_attacks.CleverHans):
    """The loop of CleverHans' TF2 tutorial (cifar10_tutorial.py).

    Of the tutorial, the loop: attack, then a compiled update. The attack gets
    labels, which saves it the forward pass that would guess them.
    """

    def prepare(
        self,
        epsilon: float,
        step_size: float,
        num_steps: int,
        learning_rate: float,
    ) -> None:
        update = self._update(learning_rate)

        def step(images, labels):
            images = self._tf.constant(images)
            labels = self._tf.constant(labels)
            adversarial = self._pgd(
                self._logits,
                images,
                epsilon,
                step_size,
                num_steps,
                float("inf"),
                clip_min=_BOX[0],
                clip_max=_BOX[1],
                y=labels,
            )
            return float(update(adversarial, labels))

        self.step = step


class Art(_TensorFlowTraining, peer_attacks.Art):
    """AdversarialTrainerMadryPGD on a TensorFlowV2Classifier.

    Its own update is traced anew for each batch, so it gets a compiled one;
    its attack would go through the batch in parts of 32, and takes it whole.
    """

    def _import(self):
        super()._import()
        from art.defences import trainer

        self._trainer = trainer

    def prepare(
        self,
        epsilon: float,
        step_size: float,
        num_steps: int,
        learning_rate: float,
    ) -> None:
        update = self._update(learning_rate)
        losses = []

        def train_step(model, images, labels):
            losses.append(update(images, labels))

        trainer = self._trainer.AdversarialTrainerMadryPGD(
            self._classifier(train_step=train_step),
            eps=epsilon,
            eps_step=step_size,
            max_iter=num_steps,
            num_random_init=0,
        )

        def step(images, labels):
            trainer.attack.set_params(batch_size=len(images), verbose=False)
            trainer.fit(images, labels, batch_size=len(images), nb_epochs=1)
            return float(losses.pop())

        self.step = step


class PlainTorch:
    """A loop of a few lines in PyTorch, channels last, nothing compiled."""

    distributions = ("torch",)

    def __init__(self):
        import torch

        from benchmarks.peers import torch_models

        self._torch, self._models = torch, torch_models
        self.versions = peer_attacks.versions(self.distributions)

    def load(self, weights: dict[str, np.ndarray]) -> None:
        network = self._models.wide_resnet(weights).requires_grad_(True)
        last = self._torch.channels_last
        self._network = network.to(memory_format=last)

    def logits(self, images: np.ndarray) -> np.ndarray:
        self._network.eval()
        with self._torch.no_grad():
            return self._network(self._images(images)).numpy()

    def prepare(
        self,
        epsilon: float,
        step_size: float,
        num_steps: int,
        learning_rate: float,
    ) -> None:
        torch, network = self._torch, self._network
        cross_entropy = torch.nn.functional.cross_entropy
        optimizer = torch.optim.SGD(
            network.parameters(), learning_rate, _MOMENTUM
        )

        def attacked(images, labels):
            adversarial = images
            for _ in range(num_steps):
                adversarial = adversarial.detach().requires_grad_()
                loss = cross_entropy(
                    network(adversarial), labels, reduction="sum"
                )
                (gradient,) = torch.autograd.grad(loss, adversarial)
                moved = adversarial.detach() + step_size * gradient.sign()
                change = (moved - images).clamp(-epsilon, epsilon)
                adversarial = (images + change).clamp(*_BOX)
            return adversarial

        def step(images, labels):
            images = self._images(images)
            labels = torch.from_numpy(labels)
            network.eval()
            adversarial = attacked(images, labels)
            network.train()
            loss = cross_entropy(network(adversarial), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        self.step = step

    def _images(self, images):
        # A view: channels stay last in memory.
        return self._torch.from_numpy(images).permute(0, 3, 1, 2)


PEERS = {
    "cleverhans_training": CleverHans,
    "art_training": Art,
    "torch_training": PlainTorch,
}
