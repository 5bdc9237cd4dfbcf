"""A strategy's side of a shared learner: fragments to it, its champions to the account."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from trading.app.shared_address import SharedLearnerAddress
from trading.app.shared_learner import Heard, News, SharedChampion
from trading.errors import LearningError
from trading.execution.events import PromotedBy
from trading.learning.champion.manager import ChampionManager
from trading.learning.champion.store import AccountChampion, ChampionStore
from trading.learning.checkpoints import write_module_weights
from trading.learning.online import LearnerReport
from trading.learning.rollout import Rollout
from trading.logs import get_logger
from trading.serving.supervisor import Backoff

log = get_logger(__name__)

_NOTE = "shared_champion.json"
"""In a champion's folder: which of the shared learner's champions it is."""
_NEWS_EVERY_S = 1.0
_NEWS_TIMEOUT_S = 10.0
"""For an answer that waits for no learning."""
_START_TIMEOUT_S = 300.0
_PAUSES = Backoff()
"""Between two champions that are asked for where the disk takes none: their weights are many."""


@dataclass(frozen=True, slots=True)
class SharedReport(LearnerReport):
    """The shared learner after its last update, and what comes to it from whom."""

    fragments: dict[str, int] = field(default_factory=dict)
    """Live fragments learned from since its process began, by strategy."""
    rollbacks: dict[str, int] = field(default_factory=dict)
    """Champions that accounts went back from since then, by strategy."""


class SharedLearning:
    """Learns from a strategy's fragments, as `OnlineLearner` does, by the learner that it shares.

    A learner that is dead, or does not answer in time, costs the fragment and nothing else. Each of
    its champions becomes one of the account's own, with a number of its own; one that the account
    went back from is not taken up again.

    Parameters
    ----------
    address
        Of the learner.
    strategy
        Name of this one.
    manager
        Of this account's champions.
    timeout_s
        Seconds that the learner may take for a fragment, those of others before it included.
    """

    def __init__(
        self,
        address: SharedLearnerAddress,
        strategy: str,
        manager: ChampionManager,
        timeout_s: float,
    ) -> None:
        self.report = SharedReport()
        self._address = address
        self._strategy = strategy
        self._manager = manager
        self._timeout_s = timeout_s
        self._heard = _newest_noted(manager.champions)
        self._asked_s = 0.0
        self._fault = ""
        self._pause_s = 0.0
        """Since the champion that the disk refused last; 0: it refused none."""
        self._again_s = 0.0
        """When the next one is asked for, by the monotonic clock."""

    def begin(
        self,
        account: AccountChampion,
        stopped: Callable[[], bool],
        tell: Callable[[str], object],
    ) -> bool:
        """Begin with the account's champion, or with the learner's where there is none.

        Parameters
        ----------
        account
            As its journal has it.
        stopped
            Asked all the while: whether to wait no more for the learner.
        tell
            Given what the learner is at.

        Returns
        -------
        bool
            Whether there is a champion.

        Raises
        ------
        LearningError
            There is no learner, it cannot learn by its settings, or the account's champion cannot
            be read.
        """
        first: SharedChampion | None = None
        if self._manager.needs_first(account):
            first = self._await_champion(stopped, tell)
            if first is None:
                return False
        version, origin = (0, "") if first is None else (first.champion.version, first.why.reason)

        def fill(folder: Path) -> None:
            assert first is not None, "an account that has a champion writes none at its start"
            write_shared(folder, first)

        self._manager.begin(fill, version, f"the shared learner's: {origin}", account)
        return True

    def _await_champion(
        self, stopped: Callable[[], bool], tell: Callable[[str], object]
    ) -> SharedChampion | None:
        """Wait for the learner's champion; None where it is stopped."""
        told, since_s = "", time.monotonic()
        while not stopped():
            asked = Heard(terms=self._address.terms)
            news: News | None = self._ask("news", _NEWS_TIMEOUT_S, asked)
            if news is not None and news.champion is not None:
                # The account begins with it: neither is it news again, nor what came before it.
                number = news.champion.champion.number
                self._heard = Heard(number, news.champion.folder, news.life, news.rejected)
                return news.champion
            at = news.fault if news is not None else self.report.paused
            if news is not None and news.is_final:
                raise LearningError(f"the shared learner: {at}")
            if news is not None:
                since_s = time.monotonic()
            elif time.monotonic() - since_s > _START_TIMEOUT_S:
                raise LearningError(
                    f"{at}, and the account has no champion yet: look for the log of the actor "
                    f"{self._address.name}"
                )
            if at != told:
                told = at
                tell(f"waiting for the shared learner: {at}")
            time.sleep(0.5)
        return None

    def learn(self, rollout: Rollout) -> None:
        """Have the learner learn from a fragment; what it decided waits in the manager."""
        timeout_s = self._timeout_s
        answer_s = timeout_s + _NEWS_TIMEOUT_S
        asked = (self._strategy, rollout, self._asks(), timeout_s)
        self._hear(self._ask("learn", answer_s, *asked))

    def follow(self, account_champion: AccountChampion) -> bool:
        """Follow this account alone, tell the learner where it went back, and hear its news."""
        known = (self._manager.account.champion, self._manager.champion.number)
        # What is on offer, and the account has not had, was not discarded.
        discarded = max((each for each in known if each <= account_champion.newest), default=0)
        is_other = self._manager.follow(account_champion)
        if is_other and account_champion.champion < discarded:
            told = (self._strategy, account_champion.champion, discarded)
            self._ask("rolled_back", _NEWS_TIMEOUT_S, *told)
        if time.monotonic() - self._asked_s > _NEWS_EVERY_S:
            self._hear(self._ask("news", _NEWS_TIMEOUT_S, self._asks()))
        return is_other

    def save(self) -> Path | None:
        """Write nothing: checkpoints are the learner's own."""
        return None

    def _asks(self) -> Heard:
        """Say what was heard, and whether a champion could be taken up: its weights are many."""
        takes = self._manager.may_offer and time.monotonic() >= self._again_s
        return self._heard._replace(takes_champion=takes, terms=self._address.terms)

    def _hear(self, news: News | None) -> None:
        self._asked_s = time.monotonic()
        if news is None:
            return
        self._tell(news.fault)
        own = {each.name: getattr(news.report, each.name) for each in fields(LearnerReport)}
        paused = news.fault or self._manager.fault or news.report.paused
        self.report = SharedReport(
            **own | {"paused": paused},
            fragments=dict(news.fragments),
            rollbacks=dict(news.rollbacks),
        )
        for event in news.rejections:
            self._manager.reject(event)
        champion, folder = self._heard.champion, self._heard.folder
        if news.champion is not None and self._take_up(news.champion):
            self._tell_anew(news.champion)
            champion, folder = news.champion.champion.number, news.champion.folder
        self._heard = Heard(champion, folder, news.life, news.rejected)

    def _tell_anew(self, shared: SharedChampion) -> None:
        """Say where the learner has another folder than the one of the account's champions."""
        if self._heard.folder not in ("", shared.folder):
            log.warning(
                "the shared learner began anew, in another folder: the account takes up what its "
                "gate lets pass, and trades on with its own champion until then",
                champion=self._manager.account.champion,
                origin=shared.why.reason,
            )

    def _take_up(self, shared: SharedChampion) -> bool:
        """Make it the next champion of this account, where the gate has let it pass.

        Whether that is done; where another one is on offer, or the disk does not take it, it is
        tried again, after a refusal of the disk later and later.
        """
        if shared.why.by is not PromotedBy.GATE:
            return True
        if not self._manager.may_offer:
            return False
        try:
            self._manager.promote(partial(write_shared, shared=shared), shared.why)
        except LearningError as error:
            if not self._pause_s:
                log.error("the shared learner's champion cannot be taken up", reason=str(error))
            self._pause_s = _PAUSES.after(self._pause_s, 0.0)
            self._again_s = time.monotonic() + self._pause_s
            return False
        if self._pause_s:
            log.info("the shared learner's champion is taken up", champion=shared.champion.number)
        self._pause_s = 0.0
        return True

    def _ask(self, method: str, timeout_s: float, *arguments: object) -> Any:
        """Return the learner's answer; None where it does not answer, which is told once."""
        import ray

        try:
            actor = ray.get_actor(self._address.name, namespace=self._address.namespace)
            return ray.get(getattr(actor, method).remote(*arguments), timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            fault = f"the shared learner does not answer within {timeout_s:g} s"
        except (ValueError, ray.exceptions.RayError) as error:
            fault = f"the shared learner does not answer ({type(error).__name__})"
        self._tell(fault)
        self.report = replace(self.report, paused=fault)
        return None

    def _tell(self, fault: str) -> None:
        """Log once that nothing is learned, and that learning goes on."""
        if fault and fault != self._fault:
            log.warning("nothing is learned, trading goes on", reason=fault)
        elif self._fault and not fault:
            log.info("the shared learner learns")
        self._fault = fault


def write_shared(folder: Path, shared: SharedChampion) -> None:
    """Write a shared learner's champion as one of an account's own."""
    write_module_weights(folder, shared.champion.weights)
    note = {"champion": shared.champion.number, "folder": shared.folder}
    (folder / _NOTE).write_bytes(msgspec.json.encode(note))


def _newest_noted(champions: ChampionStore) -> Heard:
    """Find the newest of the shared learner's champions that the account has had.

    A note of before learners' folders had identities names none: it holds for the one there is.
    """
    newest = Heard()
    for number in champions.numbers():
        note = champions.path(number) / _NOTE
        if not note.is_file():
            continue
        noted = msgspec.json.decode(note.read_bytes())
        champion, learnt_in = int(noted["champion"]), str(noted.get("folder", ""))
        if learnt_in == newest.folder:
            champion = max(champion, newest.champion)
        newest = Heard(champion, learnt_in)
    return newest
