"""Settings that there are no more."""

GONE = {
    "learning.burn_in": "it took time and taught nothing more",
    "model.residual": "what it gained model.layer_norm gains as well",
}
"""Each by its dotted key, with what was measured; see docs/learner.md, "Tried and not kept"."""


def gone(key: str) -> str:
    """Return why a setting is no more and what to do about it; empty where it never was one."""
    return f"there is no such setting any more, as {GONE[key]}: remove it" if key in GONE else ""
