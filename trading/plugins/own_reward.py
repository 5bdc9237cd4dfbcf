"""A reward of a user's own: one compiled function, paid by live trading and training alike."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trading.config import Settings
from trading.errors import PluginError
from trading.plugins.compiled_functions import check_digest, compiled, read_only, tried
from trading.plugins.digests import code_digest
from trading.plugins.discovery import load_files
from trading.plugins.plugin_registry import Plugin, chosen, error_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trading.market.chain import F64, I64

KEY = "env.reward"


@dataclass(frozen=True)
class OwnReward:
    """Names a reward, so that another process finds the same one; a `RewardRule`.

    Attributes
    ----------
    files : that register it
    name : by which they do
    digest : of its function, see `trading.plugins.digests.code_digest`
    width : numbers in an observation
    """

    files: tuple[Path, ...]
    name: str
    digest: str
    width: int

    def __str__(self) -> str:
        return f"{self.name} ({self.digest})"

    def prepare(self) -> None:
        """Compile it and try it out.

        Raises
        ------
        PluginError
            It is missing, is not the one that was named, cannot be compiled, gives no finite
            number, or another one for the same bar.
        """
        _prepared(self)

    def pay(
        self,
        changes: "F64",
        equity: "F64",
        capital: float,
        observations: "NDArray[np.float32]",
        which: "I64",
        limit: float,
        rewards: "F64",
    ) -> None:
        """Turn the rewards of accounts `which` into what its function makes of them, within limits.

        Raises
        ------
        PluginError
            As of `prepare`, or it fails or gives no finite number now.
        """
        plugin, pay = _prepared(self)
        try:
            refused = pay(changes, equity, capital, observations, which, limit, rewards)
        except Exception as error:
            raise PluginError(
                f"{plugin} failed at a bar{error_in(error, plugin.file)}: {plugin.way_out}"
            ) from error
        if refused >= 0:
            raise PluginError(
                f"{plugin} gave no finite number for a change of {changes[refused]}, a reward of "
                f"{rewards[refused]} and an equity of {equity[refused]}: {plugin.way_out}"
            )


def registered_reward(settings: Settings, width: int) -> OwnReward | None:
    """Return the reward that the settings name, for rows of so many numbers; None: the usual one.

    Raises
    ------
    PluginError
        A plug-in cannot be loaded, or none registers it.
    """
    name = settings.env.reward
    if name is None:
        return None
    files = tuple(each.resolve() for each in settings.plugins)
    plugin = chosen(load_files(files).rewards, "reward", name, KEY)
    return OwnReward(files, name, code_digest(plugin.make), width)


@cache
def _prepared(reward: OwnReward) -> tuple[Plugin, Any]:
    plugin = chosen(load_files(reward.files).rewards, "reward", reward.name, KEY)
    check_digest(plugin, reward.digest)
    function = compiled(plugin)
    for bar in _samples(reward.width):
        tried(plugin, function, bar)
    return plugin, _paying(function)


def _samples(width: int) -> list[Any]:
    """Return bars of all kinds: none held, a gain, a loss, everything lost."""
    import numpy as np

    from trading.envs.rewards import BarEarnings

    rng, capital = np.random.default_rng(7), 100_000.0
    return [
        read_only(
            BarEarnings(
                change,
                100.0 * change,
                capital * (1.0 + change),
                capital,
                (spread * rng.uniform(-1.0, 1.0, width)).astype(np.float32),
            )
        )
        for change, spread in ((0.0, 0.0), (0.004, 1.0), (-0.02, 5.0), (-1.0, 5.0))
    ]


def _paying(function: Any) -> Any:
    """Return a compiled loop that calls a compiled function."""
    import numpy as np
    from numba import njit

    from trading.envs.rewards import BarEarnings

    @njit(error_model="numpy")
    def pay(
        changes: "F64",
        equity: "F64",
        capital: float,
        observations: "NDArray[np.float32]",
        which: "I64",
        limit: float,
        rewards: "F64",
    ) -> int:
        for b in which:
            bar = BarEarnings(changes[b], rewards[b], equity[b], capital, observations[b])
            reward = function(bar)
            if not np.isfinite(reward):
                return int(b)
            rewards[b] = min(max(reward, -limit), limit)
        return -1

    return pay
