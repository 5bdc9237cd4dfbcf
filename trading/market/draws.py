"""Random draws that are cheap enough to make by the dozen for every quote.

A draw is a function of a key and a position, not of the draws before it: the finaliser of
SplitMix64 applied to a Weyl sequence (G. Steele, D. Lea and C. Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014). Ten of its 64 bits choose one of 1,024 equally likely
values of a normal or an exponential variable, which is fine enough for prices that are rounded to
ticks and sizes that are whole contracts.
"""

from math import log1p
from statistics import NormalDist

import numpy as np
from numba import njit

_VALUES = 1024
_MASK = np.uint64(_VALUES - 1)
_WEYL = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)

_LEVELS = (np.arange(_VALUES) + 0.5) / _VALUES
_NORMAL = np.array([NormalDist().inv_cdf(level) for level in _LEVELS.tolist()])
_NORMAL /= _NORMAL.std()
_EXPONENTIAL = np.array([-log1p(-level) for level in _LEVELS.tolist()])
_EXPONENTIAL /= _EXPONENTIAL.mean()


@njit(cache=True, error_model="numpy")
def draw_key(rng: np.random.Generator) -> np.uint64:
    """Return a key for `bits_at`, from one draw of the generator."""
    return np.uint64(rng.random() * 9007199254740992.0)


@njit(cache=True, error_model="numpy")
def bits_at(key: np.uint64, position: int) -> np.uint64:
    """64 random bits that belong to a position of the key's sequence."""
    z = (key + np.uint64(position)) * _WEYL
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@njit(cache=True, error_model="numpy")
def uniform_of(bits: np.uint64, shift: int, width: int) -> float:
    """Return number in [0, 1) from the `width` bits that begin at bit `shift`."""
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    return np.int64((bits >> np.uint64(shift)) & mask) / float(1 << width)


@njit(cache=True, error_model="numpy")
def normal_of(bits: np.uint64, shift: int) -> float:
    """Return a standard normal draw, at most 3.3 in size, from the ten bits from `shift` on."""
    return float(_NORMAL[np.int64((bits >> np.uint64(shift)) & _MASK)])


@njit(cache=True, error_model="numpy")
def exponential_of(bits: np.uint64, shift: int) -> float:
    """Exponential draw with mean one, at most 7.7, from the ten bits that begin at bit `shift`."""
    return float(_EXPONENTIAL[np.int64((bits >> np.uint64(shift)) & _MASK)])
