"""A rule-based trader in the policy's place: same bars, masks, journal and broker."""

from typing import Protocol

import numpy as np

from trading.errors import ConfigError
from trading.execution.broker import PaperBroker
from trading.execution.portfolio import Account
from trading.learning.champion.manager import PromotionDecision
from trading.learning.champion.store import AccountChampion, Champion
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


class WhoTrades(Protocol):
    """What the trading loop asks about who trades; see `trading.live.champion_policy`."""

    @property
    def version(self) -> int: ...

    @property
    def account_champion(self) -> AccountChampion: ...

    def begin(self, now_ns: int) -> None: ...

    def receive(self, decision: PromotionDecision, now_ns: int, equity: float) -> None: ...

    def know(self, champion: Champion) -> None: ...

    def follow_account(self, now_ns: int) -> None: ...


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


class NoChampion:
    """Of an account that a rule-based trader trades: no weights, and nobody to follow.

    Parameters
    ----------
    broker
        Of the account.
    """

    version = 0

    def __init__(self, broker: PaperBroker) -> None:
        self._broker = broker

    @property
    def account_champion(self) -> AccountChampion:
        """Where the account stands."""
        return AccountChampion.of(self._broker.account)

    def begin(self, now_ns: int) -> None:
        """There is nothing to load."""

    def receive(self, decision: PromotionDecision, now_ns: int, equity: float) -> None:
        """There is no champion to change."""

    def know(self, champion: Champion) -> None:
        """There is no champion to choose."""

    def follow_account(self, now_ns: int) -> None:
        """There is no champion to fall back to."""


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
