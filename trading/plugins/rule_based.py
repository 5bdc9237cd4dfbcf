"""A registered trader that acts, held to what it may return."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading.envs.by_name import acting_with
from trading.envs.catalogue import action_names
from trading.envs.structures import Structure, all_actions
from trading.errors import PluginError
from trading.plugins.plugin_registry import Plugin, accepts, called, error_in


class RuleBased:
    """A `SessionTrader`: one that was registered, made for one run.

    Parameters
    ----------
    plugin
        Which.
    seed
        What its function is given.
    structures
        Of a user's own that it may open: those of the rules that it trades by.
    features
        Names of a user's own that it sees, in their order.

    Raises
    ------
    PluginError
        Its function fails, or makes nothing that can act.
    """

    def __init__(
        self,
        plugin: Plugin,
        seed: int,
        structures: tuple[Structure, ...] = (),
        features: Sequence[str] = (),
    ) -> None:
        self.plugin = plugin
        self._structures, self._features = structures, tuple(features)
        with acting_with(structures, self._features):
            self._act = called(plugin, seed)
        if not callable(self._act) or not accepts(self._act, 2):
            raise PluginError(
                f"{plugin} returned {self._act!r}: it must return a function of two arguments, "
                "act(observation, first)"
            )

    def __call__(
        self, observation: dict[str, NDArray[Any]], first: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Return an action per account, int64 [B].

        Raises
        ------
        PluginError
            It fails, returns something else, or an action that the mask does not allow.
        """
        mask = observation["action_mask"]
        shown = {name: column.copy() for name, column in observation.items()}
        try:
            with acting_with(self._structures, self._features):
                found = np.asarray(self._act(shown, first.copy()))
        except Exception as error:
            raise PluginError(
                f"{self.plugin} failed at a decision{error_in(error, self.plugin.file)}: "
                f"{self.plugin.way_out}"
            ) from error
        if found.shape != first.shape or not np.issubdtype(found.dtype, np.integer):
            raise PluginError(
                f"{self.plugin} returned {found.dtype} {list(found.shape)}: act must return one "
                f"action per row, int64 [{len(first)}]"
            )
        actions: NDArray[np.int64] = found.astype(np.int64)
        outside = (actions < 0) | (actions >= mask.shape[1])
        if outside.any():
            raise PluginError(
                f"{self.plugin} chose action {actions[outside][0]} in row "
                f"{np.flatnonzero(outside)[0]}: actions are 0 to {mask.shape[1] - 1} "
                "(docs/actions.md)"
            )
        refused = np.flatnonzero(~mask[np.arange(len(actions)), actions])
        if len(refused):
            row = int(refused[0])
            name = action_names(mask.shape[1], all_actions(self._structures))[int(actions[row])]
            raise PluginError(
                f"{self.plugin} chose {name} in row {row}, where the "
                'mask does not allow it: choose where observation["action_mask"] is True; holding '
                "always is"
            )
        return actions
