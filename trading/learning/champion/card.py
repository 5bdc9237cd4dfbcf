"""The model card of a policy: what it learnt from, by which settings, what it showed, its limits.

Model cards after Mitchell et al. 2019 (arXiv:1810.03993), made of what is known at a promotion.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trading.config import Settings
from trading.learning.noted_settings import NOTED, noted_settings, shown
from trading.logs import get_logger

log = get_logger(__name__)

CARD = "card.md"
"""In the folder of a champion."""
LEARNT_FROM = "learnt_from"
"""Of a checkpoint's metadata: `markets` that it was trained in, and the `live` account."""
_ALWAYS = ("seed", "symbols", "policy.act", "env.sessions_per_episode", "execution.style")
_HELD_OUT = {
    "simulated": "simulated sessions",
    "history": "days of learning.gate.history",
    "recent": "newest recorded days",
}


def describe_training_markets(settings: Settings) -> dict[str, str]:
    """Return what is trained in, for a checkpoint's metadata."""
    history = settings.learning.history
    return {"markets": "simulated markets" if history is None else f"history {history}"}


def describe_experience(settings: Settings) -> dict[str, str]:
    """Return what is trained in, and the account whose decisions are learned from beside it."""
    if not settings.learning.online:
        return describe_training_markets(settings)
    live = f"data.source {settings.data.source}: {', '.join(settings.symbols)}"
    return {**describe_training_markets(settings), "live": live}


def model_card(name: str, metadata: Mapping[str, Any], digest: str) -> str:
    """Markdown, from what a manifest says and the SHA-256 of the weights."""
    parts = [f"# Model card: {name}", _table(_identity(metadata, digest))]
    parts += ["## Data", _table(_data(metadata))]
    parts += ["## Settings", _settings(metadata)]
    parts += ["## Results", _results(metadata)]
    parts += ["## Limits", "\n".join(f"- {each}" for each in _limits(metadata))]
    return "\n\n".join(parts) + "\n"


def write_card(
    directory: Path, name: str, metadata: Mapping[str, Any], digest: Callable[[], str]
) -> None:
    """Write the card; where that fails it is told in the log, and nothing else fails of it."""
    card = directory / CARD
    try:
        card.write_text(model_card(name, metadata, digest()), encoding="utf-8")
    except Exception as error:
        # Whatever is wrong with a description, the policy that it describes is whole.
        log.error("no model card is written", model=name, reason=str(error))
        with contextlib.suppress(OSError):
            card.unlink(missing_ok=True)


def _identity(metadata: Mapping[str, Any], digest: str) -> Iterator[tuple[str, str]]:
    yield "weights, SHA-256", f"`{digest}`"
    if "version" in metadata:
        yield "updates that led to it", str(metadata["version"])
    if "by" in metadata:
        yield "promoted by", f"{metadata['by'] or 'unknown'}: {metadata['reason']}"
        yield "at", f"{datetime.fromtimestamp(metadata['time'], UTC):%Y-%m-%d %H:%M:%S} UTC"
        before = metadata["before"]
        yield "in place of", f"champion-{before}" if before else "none"
    yield "network", "cascaded LSTM with actor and critic (docs/learner.md), PPO"


def _data(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    told = metadata.get(LEARNT_FROM, {})
    yield "trained in", str(told.get("markets", "not known"))
    settings = metadata.get(NOTED, {})
    market = [f"`{key}={shown(settings[key])}`" for key in _changed(settings, "market.")]
    if told.get("markets") == "simulated markets":
        yield (
            "the simulated markets",
            ", ".join(market) or "the defaults (docs/simulator.md)",
        )
    if metadata.get("by") == "gate" and "live" in told:
        yield "and, as it traded, on", str(told["live"])
    if "data.bar_seconds" in settings:
        yield "a decision each", f"{settings['data.bar_seconds']} s of exchange time"


def _settings(metadata: Mapping[str, Any]) -> str:
    settings = metadata.get(NOTED)
    if not settings:
        return "Not known: nothing was noted beside the weights."
    keys = [*(key for key in _ALWAYS if key in settings), *_changed(settings, "")]
    rows = [(f"`{key}`", f"`{shown(settings[key])}`") for key in dict.fromkeys(keys)]
    return _table(rows) + "\n\nAll others are the defaults of docs/settings.md."


def _changed(settings: Mapping[str, Any], prefix: str) -> list[str]:
    """Return noted settings that are not the defaults; the market's where asked for."""
    usual = noted_settings(Settings())
    return [
        key
        for key in sorted(settings)
        if key.startswith(prefix or key)
        and (prefix or not key.startswith("market."))
        and usual.get(key, settings[key]) != settings[key]
    ]


def _results(metadata: Mapping[str, Any]) -> str:
    compared = metadata.get("compared") or []
    if not compared:
        return "None: the gate was not asked about it."
    lines = [
        "Beside the champion before it, on sessions that neither learned from; percent of the "
        "initial capital a session, fees paid.",
        "",
        "| held out | episodes | the champion before | this one | difference | bounds |",
        "|---|---|---|---|---|---|",
    ]
    for each in compared:
        bounds = "too few episodes"
        if each["low"] is not None:
            bounds = f"{each['low']:+.3f} to {each['high']:+.3f}"
        lines.append(
            f"| {_HELD_OUT.get(each['held_out'], each['held_out'])} | {each['sessions']} "
            f"| {each['champion']:+.3f} | {each['challenger']:+.3f} | {each['difference']:+.3f} "
            f"| {bounds} |"
        )
    if metadata.get("kl") is not None:
        lines += ["", f"KL divergence from the champion before: {metadata['kl']:.4f} nats."]
    return "\n".join(lines)


def _limits(metadata: Mapping[str, Any]) -> Iterator[str]:
    settings, compared = metadata.get(NOTED, {}), metadata.get("compared") or []
    style = settings.get("execution.style")
    model = f" (`execution.style={style}`)" if style else ""
    yield f"Paper trading: fills are modelled{model}, and no order of it ever moved a market."
    if compared:
        margin = settings.get("learning.gate.margin_pct")
        allowed = f" of {margin:g} % a session" if margin is not None else ""
        yield (
            f"Promoted is not profitable: the gate shows that it is not worse than the one before "
            f"by more than a margin{allowed}."
        )
        if all(each["held_out"] == "simulated" for each in compared):
            yield "It was judged on simulated sessions only: in a real market nothing is shown."
    else:
        yield "Nothing was measured of it at its promotion: `trading backtest --model` does."
    yield (
        "It fits this network, these features and this catalogue of actions only, and these "
        "symbols' kind of market: another one is not what it learnt."
    )


def _table(rows: Any) -> str:
    lines = ["| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in rows]
    return "\n".join(lines)


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|")
