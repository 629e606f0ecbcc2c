"""What an attack did to some images."""

import dataclasses

import numpy as np

from atat_tf.attacks import stepped


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an attack did to n images.

    Attributes:
      adversarial: float32 [n, H, W, C], the candidate closest to success.
      margin: float32 [n], its `losses.verdict_margin`; not above 0 where it
        broke.
      prediction: int64 [n], its class when alone (of even ones, another than
        the label), the label where it did not break; −1 with batch statistics,
        where no image is looked at alone.
      broke_at: int32 [n], number of steps until then, −1 where it never did.
      linf: float32 [n], ‖adversarial − image‖_∞.
      refuted: bool [n], broken in its batch and not alone, or outside ball or
        box: counted as not broken.
      seconds: float [n], wall time, an equal share of its batches'.
    """

    adversarial: np.ndarray
    margin: np.ndarray
    prediction: np.ndarray
    broke_at: np.ndarray
    linf: np.ndarray
    refuted: np.ndarray
    seconds: np.ndarray

    @property
    def broken(self) -> np.ndarray:
        """Whether each image has an adversarial example, bool [n]."""
        return self.broke_at != stepped.NEVER


def of_no_image(images: np.ndarray) -> Outcome:
    """Returns the Outcome of no image, which not every layer takes.

    Args:
      images: [0, H, W, C].
    """
    return Outcome(
        adversarial=images.astype(np.float32),
        margin=np.zeros(0, np.float32),
        prediction=np.zeros(0, np.int64),
        broke_at=np.zeros(0, np.int32),
        linf=np.zeros(0, np.float32),
        refuted=np.zeros(0, bool),
        seconds=np.zeros(0),
    )
