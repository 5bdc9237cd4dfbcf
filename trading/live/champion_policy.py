"""Which policy trades: decisions are journalled, and the policy follows the account's champion."""

import math

import msgspec

from trading.execution.broker import PaperBroker
from trading.execution.events import (
    ChallengerRejected,
    ChampionPromoted,
    ChampionRolledBack,
    PromotedBy,
    WeightsAdopted,
)
from trading.learning.champion.manager import AccountChampion, PromotionDecision
from trading.learning.champion.registry import ChampionState
from trading.learning.champion.store import Champion, weights_digest
from trading.learning.policy import Policy
from trading.logs import get_logger

log = get_logger(__name__)


class ChampionPolicy:
    """Keeps the policy's weights those of the account's champion, on the trading thread.

    Parameters
    ----------
    broker
        Of the account.
    policy
        What trades; its weights are replaced.
    champion_state
        Who is to trade as far as the driver knows.
    """

    def __init__(self, broker: PaperBroker, policy: Policy, champion_state: ChampionState) -> None:
        self._broker = broker
        self._policy = policy
        self._state = champion_state
        self._known: dict[int, Champion] = {}
        self._loaded = 0
        self._remember(champion_state.champion)
        if champion_state.before is not None:
            self._remember(champion_state.before)

    @property
    def version(self) -> int:
        """Version of the weights that trade."""
        champion = self._known.get(self._loaded)
        return champion.version if champion else 0

    @property
    def account_champion(self) -> AccountChampion:
        """Where the account stands, for the driver."""
        return AccountChampion.of(self._broker.account)

    def begin(self, now_ns: int) -> None:
        """Trade with the account's champion, or with the driver's where that is news."""
        account, champion = self._broker.account, self._state.champion
        if account.champion not in self._known or self._is_news():
            change = self._state.pointer.change
            if not account.champion:
                change = ChampionPromoted(
                    0, champion.number, champion.version, 0, PromotedBy.START, change.reason, 0.0
                )
            self._change(change, champion, now_ns, self._broker.equity())
        if account.weights_version != self._known[account.champion].version:
            self._adopt(account.champion, now_ns)
        self._load(account.champion)

    def receive(self, decision: PromotionDecision, now_ns: int, equity: float) -> None:
        """Journal a decision, once, and trade with its champion.

        A challenger that passed the gate against a champion that has fallen since is void.
        """
        event = decision.event
        account = self._broker.account
        if isinstance(event, ChallengerRejected):
            if event.number > account.refusals:
                self._broker.record([msgspec.structs.replace(event, ts_ns=now_ns)])
            return
        assert decision.champion is not None, "a change of the champion brings its weights"
        self._remember(decision.champion)
        known = event.champion == account.champion
        # Numbers only rise: an older promotion, received again, is not news.
        void = isinstance(event, ChampionPromoted) and (
            event.champion <= account.newest_champion
            or (event.by is PromotedBy.GATE and event.before != account.champion)
        )
        if known or void:
            log.info("a change of the champion is void", champion=event.champion, known=known)
            return
        # Before the first bar some holding may have no price yet.
        worth = equity if math.isfinite(equity) else self._broker.equity()
        self._change(event, decision.champion, now_ns, worth)
        self._load(event.champion)

    def follow_account(self, now_ns: int) -> None:
        """Trade with the champion that a drawdown has brought back."""
        number = self._broker.account.champion
        # Where its weights are not known here, the driver will send them; until then nothing opens.
        if number != self._loaded and number in self._known:
            self._adopt(number, now_ns)
            self._load(number)

    def _is_news(self) -> bool:
        """Whether the driver's champion is one that the account has not fallen back from."""
        account, pointer = self._broker.account, self._state.pointer
        return pointer.champion not in (account.champion, account.discarded_champion)

    def _change(
        self,
        event: ChampionPromoted | ChampionRolledBack,
        champion: Champion,
        now_ns: int,
        equity: float,
    ) -> None:
        account = self._broker.account
        if isinstance(event, ChampionPromoted):
            event = msgspec.structs.replace(event, ts_ns=now_ns, equity=equity)
        else:
            event = msgspec.structs.replace(
                event,
                ts_ns=now_ns,
                number=account.rollbacks + 1,
                equity=equity,
                peak=account.champion_peak_equity,
            )
        self._broker.change_champion(event, _adopted(champion, now_ns))
        log.info(
            "another champion trades",
            champion=champion.number,
            version=champion.version,
            by=str(event.by),
            reason=event.reason,
        )

    def _adopt(self, number: int, now_ns: int) -> None:
        self._broker.record([_adopted(self._known[number], now_ns)])

    def _load(self, number: int) -> None:
        self._policy.load_weights(self._known[number].weights)
        self._loaded = number

    def _remember(self, champion: Champion) -> None:
        """Keep the newest few: the one that trades, and those that it may fall back to."""
        self._known.pop(champion.number, None)
        self._known[champion.number] = champion
        for number in list(self._known)[:-3]:
            if number not in (self._loaded, self._broker.account.champion_before):
                del self._known[number]


def _adopted(champion: Champion, now_ns: int) -> WeightsAdopted:
    return WeightsAdopted(now_ns, champion.version, weights_digest(champion.weights))
