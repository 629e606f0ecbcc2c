"""APGD of one image in NumPy and loops, and a smooth model with its gradient.

Written from the paper's Algorithm 1 and Section 3.2 with the whole history of
losses at hand, in place of the running counts of `atat_tf.attacks.apgd`.
"""

import numpy as np
import tensorflow as tf

from atat_tf.attacks import randomness

# After 20 steps: periods of 4, 3, 2 and then 1 (0.22, 0.03 and 0.06 of 20 are
# 4, 1 and 1 steps).
CHECKPOINTS = (4, 7, 9, *range(10, 21))


class WavyModel:
    """Logits V · sin(W · pixels) in float64: many tops, smooth everywhere."""

    def __init__(self, shape, num_classes, width=16, seed=0):
        generator = np.random.default_rng(seed)
        size = int(np.prod(shape))
        self.inner = 4.0 * generator.normal(size=(width, size))
        self.outer = generator.normal(size=(num_classes, width))

    def logits(self, images):
        """Returns float64 [b, k], by TensorFlow."""
        pixels = tf.reshape(images, [-1, self.inner.shape[1]])
        waves = tf.sin(tf.matmul(pixels, self.inner, transpose_b=True))
        return tf.matmul(waves, self.outer, transpose_b=True)

    def logits_and_pullback(self, pixels):
        """Returns logits [k] and, for ∂f/∂logits [k], the function ∂f/∂x."""
        angles = self.inner @ pixels
        logits = self.outer @ np.sin(angles)
        return (
            logits,
            lambda slopes: (
                self.inner.T @ (np.cos(angles) * (self.outer.T @ slopes))
            ),
        )


def walk(model, image, label, seed, attack):
    """Returns the rows that `attack` should end with after 20 steps.

    Args:
      model: WavyModel.
      image: float64 [H, W, C].
      label: its class.
      seed: int64 [2], of the random start.
      attack: apgd.APGD with 20 steps, for its fields only.
    """
    clean, epsilon = image.ravel(), attack.epsilon
    target = None
    if attack.target:
        order = np.argsort(-model.logits_and_pullback(clean)[0])
        target = [c for c in order if c != label][attack.target - 1]

    def project(point):
        return _projection(point, clean, attack)

    def evaluate(point):
        logits, pullback = model.logits_and_pullback(point)
        loss, slopes = _loss(attack.loss, logits, label, target)
        margin = logits[label] - max(np.delete(logits, label))
        return loss, pullback(slopes), margin

    x = [project(clean + epsilon * _noise(seed, image.shape, attack.norm))]
    margins = [(evaluate(clean)[2], 0, clean)]
    loss, gradient, margin = evaluate(x[0])
    margins.append((margin, 0, x[0]))
    f, f_left, g = [loss], [loss], gradient
    best = (loss, x[0], gradient)
    eta, etas, best_losses, last = 2 * epsilon, [2 * epsilon], [loss], 0
    for k in range(20):
        direction = np.sign(g)
        if attack.norm == "l2":
            direction = g / np.sqrt(np.sum(g**2))
        z = project(x[k] + eta * direction)
        new = z
        if k > 0:
            new = project(x[k] + 0.75 * (z - x[k]) + 0.25 * (x[k] - x[k - 1]))
        loss, g, margin = evaluate(new)
        margins.append((margin, k + 1, new))
        f.append(loss)
        if loss > best[0]:
            best = (loss, new, g)
        if k + 1 in CHECKPOINTS:
            successes = sum(f[i + 1] > f_left[i] for i in range(last, k + 1))
            best_losses.append(best[0])
            first = successes < attack.rho * (k + 1 - last)
            unchanged = len(etas) < 2 or etas[-1] == etas[-2]
            second = unchanged and best_losses[-1] == best_losses[-2]
            if first or second:
                eta /= 2
                loss, new, g = best
            etas.append(eta)
            last = k + 1
        x.append(new)
        f_left.append(loss)
    return {
        "point": x[-1].reshape(image.shape),
        "best": best[1].reshape(image.shape),
        "best_loss": best[0],
        "step_size": eta,
        **_verdict(margins, image.shape),
    }


def _verdict(margins, shape):
    """Returns candidate, margin and step of (margin, step, point) in order."""
    broken = [triple for triple in margins if triple[0] < 0]
    lowest = broken[0] if broken else min(margins, key=lambda t: t[0])
    return {
        "margin": lowest[0],
        "adversarial": lowest[2].reshape(shape),
        "broke_at": lowest[1] if broken else -1,
    }


def _noise(seed, shape, norm):
    if norm == "linf":
        draw = tf.random.stateless_uniform(shape, seed, -1, 1, alg="philox")
        noise = draw.numpy().astype(np.float64).ravel()
        return noise / max(abs(noise))
    (draw,) = randomness.normal_noise(tf.stack([seed]), shape, 1.0)
    noise = draw.numpy().astype(np.float64).ravel()
    return noise / np.sqrt(np.sum(noise**2))


def _projection(point, clean, attack):
    moved = point - clean
    if attack.norm == "linf":
        moved = np.clip(moved, -attack.epsilon, attack.epsilon)
    elif np.sqrt(np.sum(moved**2)) > attack.epsilon:
        moved = moved * attack.epsilon / np.sqrt(np.sum(moved**2))
    return np.clip(clean + moved, *attack.bounds)


def _loss(name, logits, label, target):
    """Returns the loss and its derivatives by the logits."""
    unit = np.eye(len(logits))
    order = np.argsort(-logits)
    rival = target
    if target is None:
        rival = next(c for c in order if c != label)
    gap, gap_slopes = logits[rival] - logits[label], unit[rival] - unit[label]
    if name == "margin":
        return gap, gap_slopes
    if name == "cross_entropy":
        powers = np.exp(logits - max(logits))
        probabilities = powers / sum(powers)
        return -np.log(probabilities[label]), probabilities - unit[label]
    if name == "dlr":
        weights = unit[order[0]] - unit[order[2]]
    else:
        weights = unit[order[0]] - (unit[order[2]] + unit[order[3]]) / 2
    # The guard decides where the label is third and the ratio 1 everywhere.
    spread = weights @ logits + 1e-12
    return gap / spread, gap_slopes / spread - gap * weights / spread**2
