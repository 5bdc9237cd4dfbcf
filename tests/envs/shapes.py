"""Option structures of a user's own, drawn at random: whatever a file of plug-ins may register."""

import math
from dataclasses import replace

from hypothesis import strategies as st

from trading.envs.structures import Structure, StructureLeg, structure_of
from trading.errors import PluginError

_DELTAS = st.sampled_from([0.10, 0.15, 0.20, 0.30, 0.40, 0.50])
_WIDTHS = st.sampled_from([-4.0, -2.0, 1.0, 2.0, 3.5])


@st.composite
def _legs(draw: st.DrawFn) -> list[StructureLeg]:
    legs: list[StructureLeg] = []
    for k in range(draw(st.integers(1, 4))):
        ratio = draw(st.sampled_from([-2, -1, 1, 2]))
        options = [n for n, leg in enumerate(legs) if leg.right != "stock"]
        way = draw(st.sampled_from(["delta", "delta", "beyond", "width", "at", "stock"]))
        right = draw(st.sampled_from(["call", "put"]))
        if way == "stock" and len(options) == k:
            legs.append(StructureLeg("stock", abs(ratio)))
        elif way in ("delta", "stock") or not options:
            legs.append(StructureLeg(right, ratio, delta=draw(_DELTAS)))
        elif way == "beyond":
            place, delta = draw(st.sampled_from(options)), draw(_DELTAS)
            legs.append(StructureLeg(right, ratio, delta=delta, beyond=place))
        elif way == "width":
            place, width = draw(st.sampled_from(options)), draw(_WIDTHS)
            legs.append(StructureLeg(right, ratio, width=width, of=place))
        else:
            place = draw(st.sampled_from(options))
            other = "put" if legs[place].right == "call" else "call"
            legs.append(StructureLeg(other, ratio, at=place))
    return legs


def _made(legs: list[StructureLeg]) -> Structure | None:
    """A structure of legs, where they make one."""
    common = math.gcd(*(leg.ratio for leg in legs)) or 1
    legs = [replace(leg, ratio=leg.ratio // common) for leg in legs]
    spans = any(leg.expiry for leg in legs)
    try:
        return structure_of("mine", legs, None if spans else ["near", "far"])
    except PluginError:
        return None


@st.composite
def _of_both(draw: st.DrawFn) -> list[StructureLeg]:
    """Legs of which the bought ones may be of the far expiry; the sold ones are near."""
    legs = [
        replace(leg, expiry="far" if leg.ratio > 0 and draw(st.booleans()) else "near")
        for leg in draw(_legs())
        if leg.right != "stock"
    ]
    return legs


STRUCTURES = st.one_of(_legs(), _of_both()).map(_made).filter(lambda made: made is not None)
"""Valid ones; what has no bound of its loss, or is one contract twice, is left out."""
