"""Defenses: what a training step minimises, up to Equation 7.

A defense is called with a student and a teacher (models from
`graphs.with_taps`), clean images, adversarial images and labels, and returns
an `Objective` of per-example losses. One whose weights follow a schedule, as
its `is_scheduled` says, is given the `progress` of the training too.
"""

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from atat_tf import grad_cam, losses
from atat_tf.defenses import compared, released
from atat_tf.defenses.objective import (
    Defense,
    Objective,
    as_layers,
    expect_clean_weight,
    expect_schedule,
    expect_smoothing,
    expect_weight,
    mixture_cross_entropy,
    mixture_outputs,
    ramp,
)
from atat_tf.errors import expect, expect_known, with_checked_fields

# Which classes' maps Eq. 5 compares.
MAPPED_CLASSES = ("true", "two")


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class Standard:
    """Cross-entropy on clean images: min_θ E[L_ce(f_θ(x), y)] (§2.2).

    Attributes:
      label_smoothing: as for `losses.cross_entropy`.
    """

    label_smoothing: float = 0.0

    terms: ClassVar = ("cross_entropy",)
    needs_attack: ClassVar = False
    needs_teacher: ClassVar = False
    layers: ClassVar = ()

    def __post_init__(self):
        expect_smoothing(self.label_smoothing)

    def __call__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        images: tf.Tensor,
        adversarial: tf.Tensor | None,
        labels: tf.Tensor,
    ) -> Objective:
        """Returns the Objective; `teacher` and `adversarial` are not read."""
        logits = student(images, training=True)["logits"]
        loss = losses.cross_entropy(labels, logits, self.label_smoothing)
        return Objective(loss, {"cross_entropy": loss}, logits, None)


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class AdversarialTraining:
    """AT: cross-entropy over the mixture of clean and adversarial images.

    L_ce = w · L_ce(x_ori) + (1 − w) · L_ce(x_adv); w = ½ is the mean over the
    mixture (§3.3), w = 0 is Madry et al. 2018: adversarial images only, clean
    ones are then not forwarded at all.

    Attributes:
      clean_weight: w, in [0, 1).
      label_smoothing: as for `losses.cross_entropy`.
    """

    clean_weight: float = 0.5
    label_smoothing: float = 0.0

    terms: ClassVar = ("cross_entropy",)
    needs_attack: ClassVar = True
    needs_teacher: ClassVar = False
    layers: ClassVar = ()

    def __post_init__(self):
        weight = self.clean_weight
        expect(0 <= weight < 1, "clean_weight in [0, 1)", clean_weight=weight)
        expect_smoothing(self.label_smoothing)

    def __call__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        images: tf.Tensor,
        adversarial: tf.Tensor,
        labels: tf.Tensor,
    ) -> Objective:
        """Returns the Objective; `teacher` is not read."""
        smoothing = self.label_smoothing
        if self.clean_weight == 0:
            logits = student(adversarial, training=True)["logits"]
            loss = losses.cross_entropy(labels, logits, smoothing)
            return Objective(loss, {"cross_entropy": loss}, None, logits)
        clean, attacked = mixture_outputs(student, images, adversarial)
        clean, attacked = clean["logits"], attacked["logits"]
        loss = mixture_cross_entropy(
            self.clean_weight, labels, clean, attacked, smoothing
        )
        return Objective(loss, {"cross_entropy": loss}, clean, attacked)


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class LogitPairing:
    """AT plus λ2 · a pairing of clean and adversarial logits.

    With Eq. 6 it is ATAT without its attention term; with pairing="mse" it is
    ALP (Kannan et al. 2018) as its authors' code has it.

    Attributes:
      logit_weight: λ2, >= 0.
      clean_weight: w of `AdversarialTraining`, in [0, 1]. The clean images
        pass the student whatever it is: their logits are paired.
      pairing: of `losses.PAIRINGS`, "norm" being Eq. 6.
      label_smoothing: as for `losses.cross_entropy`.
      logit_schedule: of λ2, see `objective.ramp`.
    """

    logit_weight: float = 1.0
    clean_weight: float = 0.5
    pairing: str = "norm"
    label_smoothing: float = 0.0
    logit_schedule: tuple[float, float] = (0.0, 0.0)

    terms: ClassVar = ("cross_entropy", "logit_pairing")
    needs_attack: ClassVar = True
    needs_teacher: ClassVar = False
    layers: ClassVar = ()

    def __post_init__(self):
        expect_weight("logit_weight", self.logit_weight)
        expect_clean_weight(self.clean_weight)
        expect_known("a pairing", self.pairing, losses.PAIRINGS)
        expect_smoothing(self.label_smoothing)
        expect_schedule("logit_schedule", self.logit_schedule)

    @property
    def is_scheduled(self) -> bool:
        return any(self.logit_schedule)

    def __call__(
        self,
        student: keras.Model,
        teacher: keras.Model | None,
        images: tf.Tensor,
        adversarial: tf.Tensor,
        labels: tf.Tensor,
        progress: tf.Tensor | float = 0.0,
    ) -> Objective:
        """Returns the Objective; `teacher` is not read."""
        clean, attacked = mixture_outputs(student, images, adversarial)
        clean, attacked = clean["logits"], attacked["logits"]
        terms = {
            "cross_entropy": mixture_cross_entropy(
                self.clean_weight, labels, clean, attacked, self.label_smoothing
            ),
            "logit_pairing": losses.PAIRINGS[self.pairing](clean, attacked),
        }
        weight = self.logit_weight * ramp(progress, self.logit_schedule)
        loss = terms["cross_entropy"] + weight * terms["logit_pairing"]
        return Objective(loss, terms, clean, attacked)


@with_checked_fields
@dataclasses.dataclass(frozen=True)
class ATAT:
    """Attention-transfer adversarial training, the paper's method.

    Eq. 7: L_total = L_ce + λ1 · L_at + λ2 · L_lp, with L_ce over the mixture,
    L_at of Eq. 5 against the teacher's clean attention, L_lp of Eq. 6. The
    defaults are the paper's; every field beyond the first four changes one of
    the terms, or adds μ · the distillation of the teacher's logits.

    Attributes:
      attention_weight: λ1, >= 0.
      logit_weight: λ2, >= 0.
      clean_weight: w of `AdversarialTraining`, in [0, 1]; 0 has adversarial
        images alone in L_ce. The clean images pass the student all the same.
      layers: names of the layers l of Eq. 4 and 5, or one of them;
        "deepest" is the last with a spatial map (§3.2).
      score: of `grad_cam.SCORES`, the class score that the maps explain.
      map_distance: of `losses.MAP_DISTANCES`, in the place of Eq. 4's norm.
      pairing: of `losses.PAIRINGS`, in the place of Eq. 6's norm.
      classes: "true", maps of the label, or "two": the mean of Eq. 5 over the
        label and the class that the student finds most likely beside it on
        x_adv. Boopathy et al. 2020 show that the maps of one class can stay
        the same while another class takes over.
      distillation: μ, >= 0, the weight of `losses.robust_distillation`; for a
        teacher that is robust itself.
      label_smoothing: as for `losses.cross_entropy`.
      attention_schedule, logit_schedule: of λ1 and λ2, see `objective.ramp`.
    """

    attention_weight: float = 1.0
    logit_weight: float = 1.0
    clean_weight: float = 0.5
    layers: str | tuple[str, ...] = ("deepest",)
    score: str = "logit"
    map_distance: str = "norm"
    pairing: str = "norm"
    classes: str = "true"
    distillation: float = 0.0
    label_smoothing: float = 0.0
    attention_schedule: tuple[float, float] = (0.0, 0.0)
    logit_schedule: tuple[float, float] = (0.0, 0.0)

    needs_attack: ClassVar = True
    needs_teacher: ClassVar = True

    def __post_init__(self):
        for name in ("attention_weight", "logit_weight", "distillation"):
            expect_weight(name, getattr(self, name))
        expect_clean_weight(self.clean_weight)
        object.__setattr__(self, "layers", as_layers(self.layers))
        expect(self.layers, "at least one attention layer", layers=self.layers)
        expect_known("a class score", self.score, grad_cam.SCORES)
        known = losses.MAP_DISTANCES
        expect_known("a distance of maps", self.map_distance, known)
        expect_known("a pairing", self.pairing, losses.PAIRINGS)
        expect_known("classes to map", self.classes, MAPPED_CLASSES)
        expect_smoothing(self.label_smoothing)
        expect_schedule("attention_schedule", self.attention_schedule)
        expect_schedule("logit_schedule", self.logit_schedule)

    @property
    def terms(self) -> tuple[str, ...]:
        names = ("cross_entropy", "attention_transfer", "logit_pairing")
        return (*names, "distillation") if self.distillation else names

    @property
    def is_scheduled(self) -> bool:
        return any((*self.attention_schedule, *self.logit_schedule))

    def __call__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        images: tf.Tensor,
        adversarial: tf.Tensor,
        labels: tf.Tensor,
        progress: tf.Tensor | float = 0.0,
    ) -> Objective:
        """Returns the Objective.

        Args:
          student: tapped model, forwarded once, in training mode, on the
            mixture of clean and adversarial images.
          teacher: tapped model, in inference mode, on clean images.
          images: float32 [b, H, W, C] in [0, 1].
          adversarial: the same shape; a constant for the gradient.
          labels: integers [b]; of shares [b, k], maps are those of the class of
            the largest.
          progress: the share of the training's steps that are done, in [0, 1).
        """
        logits, maps, teacher_logits, teacher_maps = self._seen(
            student, teacher, images, adversarial, labels
        )
        clean_logits, adversarial_logits = tf.split(logits, 2)
        terms = {
            "cross_entropy": mixture_cross_entropy(
                self.clean_weight,
                labels,
                clean_logits,
                adversarial_logits,
                self.label_smoothing,
            ),
            "attention_transfer": self._transfer(teacher_maps, maps),
            "logit_pairing": losses.PAIRINGS[self.pairing](
                clean_logits, adversarial_logits
            ),
        }
        attention_weight = self.attention_weight * ramp(
            progress, self.attention_schedule
        )
        logit_weight = self.logit_weight * ramp(progress, self.logit_schedule)
        loss = (
            terms["cross_entropy"]
            + attention_weight * terms["attention_transfer"]
            + logit_weight * terms["logit_pairing"]
        )
        if self.distillation:
            terms["distillation"] = losses.robust_distillation(
                teacher_logits, clean_logits, adversarial_logits
            )
            loss += self.distillation * terms["distillation"]
        return Objective(loss, terms, clean_logits, adversarial_logits)

    def _seen(self, student, teacher, images, adversarial, labels):
        """Returns what both networks answer, and where they look.

        The student's logits [2 b, k] and a list of maps {layer: [2 b, h, w]},
        of each mapped class, of clean ++ adversarial; and the teacher's, of
        clean images, as constants.
        """
        true_classes = losses.classes(labels)
        mapped = [true_classes]

        def twice(logits):
            if self.classes == "two":
                _, of_adversarial = tf.split(logits, 2)
                other = losses.strongest_other(true_classes, of_adversarial)
                mapped.append(other)
            return [tf.concat([c, c], axis=0) for c in mapped]

        logits, maps = grad_cam.logits_and_attentions(
            student,
            tf.concat([images, adversarial], axis=0),
            twice,
            training=True,
            score=self.score,
        )
        teacher_logits, teacher_maps = grad_cam.logits_and_attentions(
            teacher, images, lambda _: mapped, training=False, score=self.score
        )
        # Frozen layers do not stop a tape: Keras fixes what it watches when
        # a variable is made.
        of_teacher = tf.nest.map_structure(
            tf.stop_gradient, (teacher_logits, teacher_maps)
        )
        return logits, maps, *of_teacher

    def _transfer(self, teacher_maps, maps):
        """Returns the mean over the mapped classes of Eq. 5, [b]."""
        of_classes = []
        for theirs, own in zip(teacher_maps, maps, strict=True):
            halves = {layer: tf.split(own[layer], 2) for layer in self.layers}
            clean = {layer: halves[layer][0] for layer in self.layers}
            adversarial = {layer: halves[layer][1] for layer in self.layers}
            of_classes.append(
                losses.attention_transfer(
                    theirs, adversarial, clean, self.map_distance
                )
            )
        return tf.add_n(of_classes) / len(of_classes)


DEFENSES: dict[str, type[Defense]] = {
    "standard": Standard,
    "at": AdversarialTraining,
    "alp": LogitPairing,
    "tla": compared.TLA,
    "trades": compared.TRADES,
    "atat": ATAT,
    "released_cifar10": released.ReleasedCIFAR10,
    "released_cifar100": released.ReleasedCIFAR100,
}
