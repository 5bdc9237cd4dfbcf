"""Features of a user's own: compiled functions of a closed bar, alike live and in training."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from trading.config import Settings
from trading.envs.defaults import DEFAULT_FEES, DEFAULT_RULES
from trading.envs.features import FEATURES, ORDER_FEATURES, OTHERS_FEATURES
from trading.envs.market_features import Feature
from trading.envs.own_features import MarketBar
from trading.envs.simulated_markets import SESSION_BARS, SimulatedMarkets
from trading.errors import PluginError
from trading.market.randomisation import DEFAULT_RANGES
from trading.plugins.compiled_functions import check_digest, compiled, read_only, tried
from trading.plugins.digests import code_digest
from trading.plugins.discovery import load_files
from trading.plugins.plugin_registry import Plugin, chosen, error_in

KEY = "env.features"


@dataclass(frozen=True)
class RegisteredFeatures:
    """Names features, so that another process finds the same ones; `OwnFeatures` of an environment.

    Attributes
    ----------
    files : that register them
    features : their names and meanings, in the order of the observation
    digests : of their functions, see `trading.plugins.digests.code_digest`
    """

    files: tuple[Path, ...]
    features: tuple[Feature, ...]
    digests: tuple[str, ...]

    def __str__(self) -> str:
        named = zip(self.features, self.digests, strict=True)
        return ", ".join(f"{each.name} ({digest})" for each, digest in named)

    @property
    def functions(self) -> Sequence[Any]:
        """Compiled functions of a `MarketBar`, tried out.

        Raises
        ------
        PluginError
            One is missing, is not the one that was named, cannot be compiled, gives no number, or
            another one for the same bar.
        """
        return [function for _, function in _prepared(self)]

    def prepare(self) -> None:
        """Compile them and try them out; raises PluginError as `functions`."""
        _prepared(self)

    def failed(self, number: int, error: Exception) -> Exception:
        """Return what says that one of them failed at a bar."""
        if isinstance(error, PluginError):
            return error
        plugin, _ = _prepared(self)[number]
        return PluginError(
            f"{plugin} failed at a bar{error_in(error, plugin.file)}: {plugin.way_out}"
        )


def registered_features(settings: Settings) -> RegisteredFeatures | None:
    """Return the features that the settings name; None where they name none.

    Raises
    ------
    PluginError
        A plug-in cannot be loaded, none registers one of them, or it has the name of another one.
    """
    names = settings.env.features
    if not names:
        return None
    files = tuple(each.resolve() for each in settings.plugins)
    registered = load_files(files).features
    plugins = [chosen(registered, "feature", name, KEY) for name in names]
    known = {each.name for each in (*FEATURES, *ORDER_FEATURES, *OTHERS_FEATURES)}
    for plugin in plugins:
        if plugin.name in known:
            raise PluginError(
                f"{plugin}: there is a feature of this name already (docs/observation.md); choose "
                "another name"
            )
    return RegisteredFeatures(
        files,
        tuple(Feature(each.name, _meaning(each)) for each in plugins),
        tuple(code_digest(each.make) for each in plugins),
    )


def _meaning(plugin: Plugin) -> str:
    return (inspect.getdoc(plugin.make) or "").partition("\n")[0]


@cache
def _prepared(own: RegisteredFeatures) -> list[tuple[Plugin, Any]]:
    registered, prepared = load_files(own.files).features, []
    for feature, digest in zip(own.features, own.digests, strict=True):
        plugin = chosen(registered, "feature", feature.name, KEY)
        check_digest(plugin, digest)
        function = compiled(plugin)
        for bar, known in _samples():
            tried(plugin, function, bar, known)
        prepared.append((plugin, function))
    return prepared


@cache
def _samples() -> list[tuple[MarketBar, bool]]:
    """Return bars of all kinds, and whether all is known in them.

    Nothing is listed and no bar has closed; a session's first bar; one with an hour behind it.
    """
    markets = SimulatedMarkets(
        1, 1, DEFAULT_RULES, DEFAULT_FEES, DEFAULT_RANGES, np.random.default_rng(7)
    )
    markets.restart(np.zeros(1, np.int64))

    def kept() -> MarketBar:
        values = [v.copy() if isinstance(v, np.ndarray) else v for v in markets.market_bar(0)]
        bar: MarketBar = read_only(MarketBar._make(values))
        return bar

    opened = kept()
    for _ in range(SESSION_BARS // 4):
        markets.advance()
    empty = [value[:0] if isinstance(value, np.ndarray) else value for value in opened]
    nothing = MarketBar._make(empty)._replace(spot=float("nan"))
    return [(nothing, False), (opened, False), (kept(), True)]
