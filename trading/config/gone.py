"""Settings that there are no more."""

from typing import Any, NamedTuple


class Gone(NamedTuple):
    """A setting of former versions."""

    off: Any
    """What it had to be to have no effect; its default."""
    why: str


GONE = {
    "learning.burn_in": Gone(0, "it took time and taught nothing more"),
    "model.feature_layers": Gone(1, "two layers took time and taught nothing more"),
    "learning.target_kl": Gone(None, "it did not prevent that what was learnt was lost"),
    "learning.vtrace_c": Gone(1.0, "no value of it learnt in fewer decisions than 1"),
    "learning.vtrace_rho": Gone(1.0, "no value of it learnt in fewer decisions than 1"),
    "model.residual": Gone(False, "what it gained model.layer_norm gains as well"),
    "model.window": Gone(None, "it took many times as long and learnt in no fewer decisions"),
}
"""Each by its dotted key; see docs/learner.md, "Options that were measured"."""


def gone(key: str) -> str:
    """Return why a setting is no more and what to do about it; empty where it never was one."""
    return (
        f"there is no such setting any more, as {GONE[key].why}: remove it" if key in GONE else ""
    )


def in_effect(key: str, value: object) -> bool:
    """Whether a setting that is gone had this value and so an effect; None: it was not known."""
    return value is not None and value != GONE[key].off
