"""What has been registered, by kind and name; each registration is checked when it is made."""

import hashlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from trading.errors import PluginError

# A command that only asks what is registered loads no compiled kernel.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trading.envs.structures import Structure, StructureLeg
    from trading.execution.fees import FeeSchedule

SessionTrader: TypeAlias = (
    "Callable[[dict[str, NDArray[Any]], NDArray[np.bool_]], NDArray[np.int64]]"
)
"""Chooses an action per account from observations, and where an episode begins, bool[B]."""

_Made = TypeVar("_Made", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_KEYS = {
    "trader": "policy.trader",
    "baseline": "plugins",
    "fee schedule": "execution.fee_schedule",
    "reward": "env.reward",
    "feature": "env.features",
    "structure": "env.structures",
}
_BY_HAND = "__main__"
"""A script, or a notebook, whose cells may run more than once."""


@dataclass(frozen=True)
class Plugin:
    """One thing that was registered.

    Attributes
    ----------
    kind : what it is, in words
    name : by which settings and commands call it
    make : what was registered
    module : in which it was
    file : where that lies; "a notebook" or the like where it is no file
    digest : 12 digits of a SHA-256 of that file
    """

    kind: str
    name: str
    make: Callable[..., Any]
    module: str
    file: str
    digest: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} of {self.file}"

    @property
    def way_out(self) -> str:
        """What to do about one that fails."""
        return f"mend it, or take it out of {_KEYS[self.kind]}"


class Registry:
    """Traders, baselines, fee schedules, rewards, features and option structures by name."""

    def __init__(self) -> None:
        self.traders: dict[str, Plugin] = {}
        self.baselines: dict[str, Plugin] = {}
        self.fee_schedules: dict[str, Plugin] = {}
        self.rewards: dict[str, Plugin] = {}
        self.features: dict[str, Plugin] = {}
        self.structures: dict[str, Plugin] = {}

    def kinds(self) -> tuple[dict[str, Plugin], ...]:
        """Every kind."""
        return (
            self.traders,
            self.baselines,
            self.fee_schedules,
            self.rewards,
            self.features,
            self.structures,
        )

    def forget(self, module: str) -> None:
        """Take out what a module registered."""
        for plugins in self.kinds():
            for name in [name for name, each in plugins.items() if each.module == module]:
                del plugins[name]


REGISTRY = Registry()
"""That of this process: importing a file is what registers its contents, as with any decorator."""


def register_trader(name: str) -> Callable[[_Made], _Made]:
    """Register a rule-based trader.

    It trades live with `policy.trader`, in `trading backtest --trader`, and in `td.backtest`.

    Parameters
    ----------
    name
        1 to 32 letters, digits, `-` and `_`.

    Returns
    -------
    A decorator of a function of one argument, the seed, that returns `act(observation, first)`.
    `observation["observations"]` is float32 [B, F], `observation["action_mask"]` bool [B, N], and
    `first`, bool [B], says where an episode begins, and what was remembered is void. `act` returns
    one action per row, int64 [B], which the mask must allow.

    Raises
    ------
    PluginError
        The name cannot be one or is taken, or the function takes other arguments.

    Examples
    --------
    >>> import numpy as np
    >>> import trading as td
    >>> @td.register_trader("cautious")
    ... def cautious(seed):
    ...     return lambda observation, first: np.full(len(first), td.HOLD)
    >>> td.backtest("cautious", simulated=1).trades.tolist()
    [0]
    """
    return _registering("trader", REGISTRY.traders, name, "seed", "seed=7")


def register_baseline(name: str) -> Callable[[_Made], _Made]:
    """Register a baseline, which every backtest and evaluation shows beside the others.

    Parameters
    ----------
    name
        As of a trader.

    Returns
    -------
    A decorator of a function as `register_trader` takes it.

    Raises
    ------
    PluginError
        The name cannot be one or is taken, or the function takes other arguments.

    Examples
    --------
    >>> import numpy as np
    >>> import trading as td
    >>> @td.register_baseline("nothing")
    ... def nothing(seed):
    ...     return lambda observation, first: np.full(len(first), td.HOLD)
    """
    return _registering("baseline", REGISTRY.baselines, name, "seed", "seed=7")


def register_fees(name: str) -> Callable[[_Made], _Made]:
    """Register a fee schedule, which `execution.fee_schedule` chooses.

    Parameters
    ----------
    name
        As of a trader.

    Returns
    -------
    A decorator of a function of one argument, the `FeeSchedule` that the other settings of
    `execution` make, that returns the one to trade with.

    Raises
    ------
    PluginError
        The name cannot be one or is taken, or the function takes other arguments.

    Examples
    --------
    >>> import trading as td
    >>> @td.register_fees("half_price")
    ... def half_price(configured):
    ...     return configured._replace(commission=configured.commission / 2)
    """
    return _registering(
        "fee schedule", REGISTRY.fee_schedules, name, "fees", "the configured FeeSchedule"
    )


def register_reward(name: str) -> Callable[[_Made], _Made]:
    """Register a reward, which `env.reward` chooses: what the policy learns from, bar by bar.

    Parameters
    ----------
    name
        As of a trader.

    Returns
    -------
    A decorator of a function of one argument, the `BarEarnings` of a bar, that returns the reward,
    a float. numba compiles it, so it is written with numbers, NumPy and what it is given.

    Raises
    ------
    PluginError
        The name cannot be one or is taken, or the function takes other arguments.

    Examples
    --------
    >>> import trading as td
    >>> DELTA = td.feature_index("position_delta")
    >>> @td.register_reward("neutral")
    ... def neutral(bar):
    ...     return bar.reward - 0.001 * abs(bar.observation[DELTA])
    """
    return _registering("reward", REGISTRY.rewards, name, "bar", "the BarEarnings")


def register_feature(name: str) -> Callable[[_Made], _Made]:
    """Register a feature, which `env.features` adds to what the policy sees.

    Parameters
    ----------
    name
        As of a trader, and of no other feature.

    Returns
    -------
    A decorator of a function of one argument, the `MarketBar` of an underlying, that returns a
    float: NaN where it is not known. Its docstring says what it is. numba compiles it, so it is
    written with numbers, NumPy and the arrays that it is given.

    Raises
    ------
    PluginError
        The name cannot be one or is taken, or the function takes other arguments.

    Examples
    --------
    >>> import trading as td
    >>> @td.register_feature("last_range")
    ... def last_range(market):
    ...     \"\"\"High less low of the last bar, in 0.1 % of the price.\"\"\"
    ...     if len(market.close) == 0:
    ...         return float("nan")
    ...     return 1000.0 * (market.high[-1] - market.low[-1]) / market.close[-1]
    """
    return _registering("feature", REGISTRY.features, name, "market", "the MarketBar")


def register_structure(
    name: str, expiries: Sequence[str] | None = None
) -> "Callable[[Callable[[], Sequence[StructureLeg]]], Structure]":
    """Register an option structure, which `env.structures` adds to what the policy may open.

    Parameters
    ----------
    name
        As of a trader, and of no strategy of the catalogue. Its actions are called by it and the
        expiry, as `jade_lizard_far`.
    expiries
        In which expiry buckets it is opened, an action each; unset: near and far, or what the legs
        name, where one position has options of both.

    Returns
    -------
    A decorator of a function without arguments that returns a list of 1 to 4 `StructureLeg`. The
    function is called once, and its name then stands for the structure, which `td.action` takes.

    Raises
    ------
    PluginError
        The name cannot be one or is taken, or the legs make no structure whose loss has a bound.

    Examples
    --------
    >>> import trading as td
    >>> @td.register_structure("broken_wing")
    ... def broken_wing():
    ...     \"\"\"A butterfly whose upper wing is twice as far away.\"\"\"
    ...     return [
    ...         td.StructureLeg("call", -2, delta=0.40),
    ...         td.StructureLeg("call", 1, width=-1.5, of=0),
    ...         td.StructureLeg("call", 1, width=3.0, of=0),
    ...     ]
    >>> td.action("broken_wing_far", structures=[broken_wing]) == len(td.ACTIONS) + 1
    True
    """

    def register(legs_of: "Callable[[], Sequence[StructureLeg]]") -> "Structure":
        from trading.envs.structures import structure_of

        plugin = _plugin("structure", name, legs_of)
        _check_name(plugin, REGISTRY.structures, name)
        if not callable(legs_of) or not accepts(legs_of, 0):
            raise PluginError(f"{plugin}: it must be a function without arguments, of its legs")
        legs = called(plugin)
        try:
            structure = structure_of(name, legs, expiries)
        except PluginError as error:
            raise PluginError(f"{plugin}: {error}") from error
        REGISTRY.structures[name] = replace(plugin, make=lambda: structure)
        return structure

    return register


def unregistered(act: SessionTrader) -> Plugin:
    """Return a trader that was handed over as it is, for messages about it."""
    return _plugin("trader", getattr(act, "__name__", type(act).__name__), act, lambda _: act)


def fees_of(plugin: Plugin, configured: "FeeSchedule") -> "FeeSchedule":
    """Return what a registered schedule makes of the configured one.

    Raises
    ------
    PluginError
        It fails, or gives no schedule whose rates are numbers from 0 on.
    """
    from trading.execution.fees import FeeSchedule

    made = called(plugin, configured)
    if not isinstance(made, FeeSchedule):
        raise PluginError(
            f"{plugin} returned {made!r}: it must return a trading.FeeSchedule, as in "
            "configured._replace(commission=0.0)"
        )
    wrong = [
        f"{name}={value!r}"
        for name, value in made._asdict().items()
        if isinstance(value, bool)
        or not isinstance(value, float | int)
        or not 0 <= value <= math.inf
        or (value == math.inf and not name.endswith("_cap"))
    ]
    if wrong:
        raise PluginError(f"{plugin} has {', '.join(wrong)}: every rate must be a number from 0 on")
    return FeeSchedule(*map(float, made))


def called(plugin: Plugin, *arguments: Any) -> Any:
    """Return what a plug-in's function returns.

    Raises
    ------
    PluginError
        It fails.
    """
    try:
        return plugin.make(*arguments)
    except Exception as error:
        raise PluginError(
            f"{plugin} failed{error_in(error, plugin.file)}: {plugin.way_out}"
        ) from error


def error_in(error: BaseException, file: str) -> str:
    """Where in a file something failed, and why."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename == file:
        line = error.lineno or 0
    where = f" in line {line}" if line else ""
    return f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def accepts(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:
        return True  # Compiled: it does not tell.
    return True


def chosen(plugins: Mapping[str, Plugin], kind: str, name: str, key: str) -> Plugin:
    """Return the plug-in of a name.

    Raises
    ------
    PluginError
        There is none; names the setting or option `key` that asks for it.
    """
    if name in plugins:
        return plugins[name]
    known = f"registered are {', '.join(sorted(plugins))}" if plugins else "none is registered"
    raise PluginError(
        f"{key}: there is no {kind} {name}; {known}: name the file that registers it in plugins, "
        "as in --set plugins=my_rules.py"
    )


def _registering(
    kind: str, plugins: dict[str, Plugin], name: str, argument: str, means: str
) -> Callable[[_Made], _Made]:
    def register(make: _Made) -> _Made:
        plugin = _plugin(kind, name, make)
        _check_name(plugin, plugins, name)
        if not callable(make) or not accepts(make, 1):
            raise PluginError(
                f"{plugin}: it must be a function of one argument, {argument} ({means})"
            )
        plugins[name] = plugin
        return make

    return register


def _check_name(plugin: Plugin, plugins: Mapping[str, Plugin], name: Any) -> None:
    """Check that a name can be one, and is free among its kind; raises PluginError otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(
            f"{plugin}: a name is 1 to 32 of A-Z, a-z, 0-9, - and _, first a letter or digit"
        )
    other = plugins.get(name)
    if other is not None and not plugin.module == other.module == _BY_HAND:
        raise PluginError(f"{plugin}: the name is taken by {other}; choose another name")


def _plugin(kind: str, name: str, of: Any, make: Callable[..., Any] | None = None) -> Plugin:
    """Return what stands for `of`, with where it lies."""
    module = getattr(of, "__module__", None) or _BY_HAND
    loaded: ModuleType | None = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if file is not None and Path(file).is_file():
        content = Path(file).read_bytes()
    else:
        try:
            content = inspect.getsource(of).encode()
        except (OSError, TypeError):
            content = b""
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Plugin(kind, str(name), make or of, module, file or "a notebook", digest)
