"""Which policy trades: its weights are those of the account's champion, whom the journal names."""

import msgspec

from trading.errors import CheckpointError
from trading.execution.broker import PaperBroker
from trading.execution.events import ChallengerRejected, ChampionPromoted, PromotedBy
from trading.learning.champion.owner_choice import adopted, worth
from trading.learning.champion.store import (
    AccountChampion,
    Champion,
    ChampionStore,
    first_state,
    fits,
)
from trading.learning.policy import Policy
from trading.logs import get_logger

log = get_logger(__name__)


class ChampionPolicy:
    """Keeps the policy's weights those of the account's champion, on the trading thread.

    The account says which one, the folder of champions has its weights.

    Parameters
    ----------
    broker
        Of the account.
    policy
        What trades; its weights are replaced.
    champions
        On disk.
    """

    def __init__(self, broker: PaperBroker, policy: Policy, champions: ChampionStore) -> None:
        self.version = 0
        """Of the weights that trade."""
        self._broker = broker
        self._policy = policy
        self._champions = champions
        self._loaded = 0
        self._fault = ""

    def begin(self, now_ns: int) -> None:
        """Trade with the account's champion, once the journal has what is new about it.

        Raises
        ------
        CheckpointError
            There is none, it cannot be read, or does not fit the network.
        """
        account = self._broker.account
        champion, news = first_state(self._champions, AccountChampion.of(account))
        self._check(champion)
        if news is not None:
            if not account.champion:
                began = {"by": PromotedBy.START, "before": 0, "kl": None, "compared": ()}
                news = msgspec.structs.replace(news, **began)
            self._promote(news, champion, now_ns, None)
        self._load(champion, now_ns)

    def receive(
        self, decision: ChampionPromoted | ChallengerRejected, now_ns: int, equity: float
    ) -> None:
        """Journal a decision, once, and trade with its champion.

        A challenger that passed the gate against another champion than the account's is void. One
        that cannot be read is not taken up, until the driver sends it again and it can.
        """
        account = self._broker.account
        if isinstance(decision, ChallengerRejected):
            if decision.number > account.refusals:
                self._broker.record([msgspec.structs.replace(decision, ts_ns=now_ns)])
        elif decision.champion <= account.newest_champion:
            return
        elif decision.before != account.champion:
            log.info("a promotion is void", champion=decision.champion, over=decision.before)
        elif (champion := self._read(decision.champion)) is not None:
            self._promote(decision, champion, now_ns, equity)
            self._load(champion, now_ns)

    def follow_account(self, now_ns: int) -> None:
        """Trade with the champion that a drawdown or the owner made the account's.

        Where one to fall back to cannot be read, the one before trades on; nothing opens until the
        owner chooses another one, or it can be read again.
        """
        number = self._broker.account.champion
        if number == self._loaded:
            return
        champion = self._read(number)
        if champion is not None:
            self._load(champion, now_ns)

    def _read(self, number: int) -> Champion | None:
        """Return a champion; None where it cannot be read or trade, which is told once."""
        try:
            champion = self._champions.load(number)
            self._check(champion)
        except (CheckpointError, OSError) as error:
            if str(error) != self._fault:
                log.error("a champion cannot be read", champion=number, reason=str(error))
            self._fault = str(error)
            return None
        self._fault = ""
        return champion

    def _check(self, champion: Champion) -> None:
        """Raise CheckpointError for one of another network, before the journal names it."""
        path = self._champions.path(champion.number)
        fits(champion.weights, self._policy.config, path)

    def _promote(
        self, event: ChampionPromoted, champion: Champion, now_ns: int, equity: float | None
    ) -> None:
        """Journal a promotion and the weights that it adopts, in one transaction."""
        event = msgspec.structs.replace(event, ts_ns=now_ns, equity=worth(self._broker, equity))
        self._broker.change_champion(event, adopted(champion, now_ns))

    def _load(self, champion: Champion, now_ns: int) -> None:
        """Trade with these weights, which the journal says first."""
        if self._broker.account.weights_version != champion.version:
            self._broker.record([adopted(champion, now_ns)])
        self._policy.load_weights(champion.weights)
        self._loaded, self.version = champion.number, champion.version
        log.info("a champion trades", champion=champion.number, version=champion.version)
