"""How far an attack moved the attention: three numbers for each image.

Attention maps of clean and attacked images enter as arrays, numbers leave.
"""

import math

import numpy as np

NAMES = ("cosine_distance", "l2_distance", "top_decile_mass")


def numbers(clean, attacked):
    """Returns the three numbers of each image.

    Args:
      clean: float [n, h, w], >= 0, attention maps of clean images (Eq. 3).
      attacked: float [n, h, w], of the same images attacked.

    Returns:
      {name of NAMES: float64 [n]}.
    """
    return {
        "cosine_distance": cosine_distance(clean, attacked),
        "l2_distance": l2_distance(clean, attacked),
        "top_decile_mass": top_decile_mass(clean, attacked),
    }


def cosine_distance(first, second):
    """Returns 1 − ⟨u, v⟩ / (‖u‖ ‖v‖) of vectorised maps, for each image.

    It does not change when a map is scaled, so maps of different networks
    can be compared.

    Args:
      first: float [n, h, w], >= 0.
      second: float [n, h, w], >= 0.

    Returns:
      float64 [n] in [0, 1]; 1 where one map is empty, 0 where both are.
    """
    u, v = _vectors(first), _vectors(second)
    norms = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    products = (u * v).sum(1)
    with np.errstate(invalid="ignore"):
        distance = 1 - np.divide(
            products, norms, out=np.zeros_like(norms), where=norms > 0
        )
    both_empty = ~u.any(1) & ~v.any(1)
    return np.where(both_empty, 0.0, distance.clip(0, 1))


def l2_distance(first, second):
    """Returns ‖v(first) − v(second)‖_2 for each image, Eq. 4 of one layer.

    Args:
      first: float [n, h, w].
      second: float [n, h, w].

    Returns:
      float64 [n], >= 0, in the unit of the maps.
    """
    return np.linalg.norm(_vectors(first) - _vectors(second), axis=1)


def top_decile_mass(clean, attacked):
    """Returns the share of the attacked map inside the clean map's top decile.

    The top decile are the ⌈h·w / 10⌉ places where the clean map is largest;
    of equal ones the first in reading order.

    Args:
      clean: float [n, h, w], >= 0.
      attacked: float [n, h, w], >= 0.

    Returns:
      float64 [n] in [0, 1]; NaN where a map is empty and nothing can be said.
    """
    places, values = _vectors(clean), _vectors(attacked)
    count = math.ceil(places.shape[1] / 10)
    top = np.argsort(-places, axis=1, kind="stable")[:, :count]
    inside = np.take_along_axis(values, top, 1).sum(1)
    mass = values.sum(1)
    known = (mass > 0) & places.any(1)
    return np.divide(inside, mass, out=np.full_like(mass, np.nan), where=known)


def _vectors(maps):
    maps = np.asarray(maps, np.float64)
    return maps.reshape(len(maps), -1)
