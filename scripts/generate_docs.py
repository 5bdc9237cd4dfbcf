"""Writes the pages of `docs/` that are made from code; a test holds them to it."""

from pathlib import Path

from trading.envs.catalogue import action_table
from trading.envs.features import feature_table
from trading.envs.market_features import HISTORY_BARS, LIMIT

DOCS = Path(__file__).parents[1] / "docs"
_MADE = "This page is made by `python scripts/generate_docs.py`.\n"


def pages() -> dict[Path, str]:
    """The content of every generated page."""
    observation = (
        "# What the policy sees\n\n"
        "One float32 vector per underlying and decision. All of it is known when the decision\n"
        f"is made. Price indicators use the last {HISTORY_BARS} closed bars; every entry is\n"
        f"clipped to ±{LIMIT:g}; what is unknown is 0.\n\n{_MADE}\n{feature_table()}"
    )
    actions = (
        "# What the policy may do\n\n"
        "One decision per underlying and bar. An action chooses its contracts by expiry and\n"
        "delta; what cannot be ordered now is masked. At most one strategy is open per\n"
        "underlying.\n\n"
        f"{_MADE}\n{action_table()}"
    )
    return {DOCS / "observation.md": observation, DOCS / "actions.md": actions}


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content)
