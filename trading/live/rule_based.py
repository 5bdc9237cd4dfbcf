"""A rule-based trader in the policy's place: same bars, masks, journal and broker."""

from typing import Protocol

import numpy as np

from trading.errors import ConfigError
from trading.execution.portfolio import Account
from trading.learning.policy import Decision
from trading.learning.rollout import BoolArray, FloatArray, RecurrentState
from trading.plugins.rule_based import RuleBased


class Decider(Protocol):
    """What the trading loop asks of who decides; see `trading.learning.policy.Policy`."""

    @property
    def is_on_policy(self) -> bool: ...

    def initial_state(self, batch_size: int) -> RecurrentState: ...

    def act(
        self,
        observations: FloatArray,
        action_mask: BoolArray,
        state: RecurrentState,
        first: BoolArray,
    ) -> tuple[Decision, RecurrentState]: ...

    def value(
        self, observations: FloatArray, action_mask: BoolArray, state: RecurrentState
    ) -> FloatArray: ...


class RuleBasedDecider:
    """A rule-based trader as the trading loop asks it: certain of its choice, and without a value.

    What it remembers begins anew with the process, and `first` tells it so.

    Parameters
    ----------
    trader
        Who chooses.
    """

    is_on_policy = False

    def __init__(self, trader: RuleBased) -> None:
        self.trader = trader
        self.config = trader.plugin.name

    def initial_state(self, batch_size: int) -> RecurrentState:
        """Nothing: the trader keeps what it remembers."""
        return {}

    def act(
        self,
        observations: FloatArray,
        action_mask: BoolArray,
        state: RecurrentState,
        first: BoolArray,
    ) -> tuple[Decision, RecurrentState]:
        """Its choice per row, with probability 1.

        Raises
        ------
        PluginError
            It failed, or chose what the mask does not allow.
        """
        seen = {"observations": observations, "action_mask": action_mask}
        actions = self.trader(seen, first)
        rows = len(actions)
        probabilities = np.zeros(action_mask.shape, np.float32)
        probabilities[np.arange(rows), actions] = 1.0
        nothing = np.zeros(rows, np.float32)
        return Decision(actions, nothing, nothing, probabilities), state

    def value(
        self, observations: FloatArray, action_mask: BoolArray, state: RecurrentState
    ) -> FloatArray:
        """Zero: it expects nothing."""
        return np.zeros(len(observations), np.float32)


def check_account(account: Account, trader: str) -> None:
    """Whether a rule-based trader may trade an account.

    Raises
    ------
    ConfigError
        Champions have traded it: their drawdown, and what they learned from, are their own.
    """
    if account.champion:
        raise ConfigError(
            [
                f"policy.trader: {trader} cannot trade account {account.account_id}, which the "
                f"learned policy has traded (champion {account.champion}): give it an account of "
                "its own, with account.id or as one of the strategies, or unset policy.trader"
            ]
        )
