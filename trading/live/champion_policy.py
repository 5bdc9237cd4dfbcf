"""Which policy trades: its weights are those of the account's champion, whom the journal names."""

import msgspec

from trading.execution.broker import PaperBroker
from trading.execution.events import ChallengerRejected, ChampionPromoted, PromotedBy
from trading.learning.champion.manager import PromotionDecision
from trading.learning.champion.owner_choice import adopted, worth
from trading.learning.champion.store import AccountChampion, Champion, ChampionState
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
        What the account begins to trade with.
    """

    def __init__(self, broker: PaperBroker, policy: Policy, champion_state: ChampionState) -> None:
        self._broker = broker
        self._policy = policy
        self._begins = champion_state
        self._known = {
            each.number: each for each in (champion_state.champion, champion_state.before) if each
        }
        self._loaded = 0

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
        """Trade with the account's champion, once the journal has what is new about it."""
        account, (champion, _, news) = self._broker.account, self._begins
        if news is not None:
            if not account.champion:
                reason = news.reason
                news = ChampionPromoted(
                    0, champion.number, champion.version, 0, PromotedBy.START, reason, 0.0
                )
            self._promote(news, champion, now_ns, None)
        if account.weights_version != champion.version:
            self._broker.record([adopted(champion, now_ns)])
        self._load(champion)

    def receive(self, decision: PromotionDecision, now_ns: int, equity: float) -> None:
        """Journal a decision, once, and trade with its champion.

        A challenger that passed the gate against another champion than the account's is void.
        """
        event, champion = decision
        account = self._broker.account
        if isinstance(event, ChallengerRejected):
            if event.number > account.refusals:
                self._broker.record([msgspec.structs.replace(event, ts_ns=now_ns)])
            return
        assert champion is not None, "a promotion brings its weights"
        if event.champion <= account.newest_champion:
            return
        if event.before != account.champion:
            log.info("a promotion is void", champion=event.champion, over=event.before)
            return
        self._promote(event, champion, now_ns, equity)
        self._load(champion)

    def know(self, champion: Champion) -> None:
        """Have the weights of a champion that the owner is about to choose."""
        self._known[champion.number] = champion

    def follow_account(self, now_ns: int) -> None:
        """Trade with the champion that a drawdown or the owner made the account's."""
        account = self._broker.account
        champion = self._known.get(account.champion)
        # Where one to fall back to could not be read, nothing opens until the owner chooses one.
        if champion is None or champion.number == self._loaded:
            return
        if account.weights_version != champion.version:
            self._broker.record([adopted(champion, now_ns)])
        self._load(champion)

    def _promote(
        self, event: ChampionPromoted, champion: Champion, now_ns: int, equity: float | None
    ) -> None:
        """Journal a promotion and the weights that it adopts, in one transaction."""
        event = msgspec.structs.replace(event, ts_ns=now_ns, equity=worth(self._broker, equity))
        self._broker.change_champion(event, adopted(champion, now_ns))

    def _load(self, champion: Champion) -> None:
        """Trade with these weights; kept are they, and those to fall back to."""
        self._policy.load_weights(champion.weights)
        self._known[champion.number] = champion
        kept = (champion.number, self._broker.account.champion_before)
        self._known = {number: each for number, each in self._known.items() if number in kept}
        self._loaded = champion.number
        log.info("a champion trades", champion=champion.number, version=champion.version)
