"""The driver's side of learning while trading: fragments from the live market, decisions to it."""

import threading
import time
from dataclasses import asdict

import ray

from trading.app.handles import LiveMarketHandle
from trading.app.held_out import HeldOutSessions
from trading.app.shared_learning import SharedLearning
from trading.errors import DataError
from trading.learning.champion.manager import ChampionManager, PromotionDecision
from trading.learning.champion.store import AccountChampion
from trading.learning.online import LearnerReport, OnlineLearner
from trading.live.metrics import LearnerFigures
from trading.live.trader import Fragment, FragmentId, LearnerReply
from trading.logs import get_logger

log = get_logger(__name__)

_FRAGMENT_TIMEOUT_S = 1.0
_POLL_S = 0.5
_AGAIN_S = 10.0
"""After which a decision is sent again between fragments, where the account has not told of it."""


class LearningLoop:
    """Runs on a thread of its own until told to stop; survives restarts of the live market.

    The account's champion is followed with and without a learner. A decision is sent again with
    each reply until the account's journal has it, or can have it no more; outside lockstep also
    between fragments, which may be far apart.

    Parameters
    ----------
    live
        Handle of the live market.
    manager
        The champions.
    learner
        Of this account, or its part in one that is shared; None where nothing is learned.
    held_out
        None where another process judges, or nothing is learned.
    lockstep
        Whether the account is followed only at the fragment that tells of it: then runs repeat.
    stop
        Ends the loop.
    """

    def __init__(
        self,
        live: LiveMarketHandle,
        manager: ChampionManager,
        learner: OnlineLearner | SharedLearning | None,
        held_out: HeldOutSessions | None,
        lockstep: bool,
        stop: threading.Event,
    ) -> None:
        self._live = live
        self._manager = manager
        self._learner = learner
        self._held_out = held_out
        self._lockstep = lockstep
        self._stop = stop
        self._sent: tuple[PromotionDecision, ...] = ()
        """The decisions that were sent last."""
        self._sent_s = 0.0
        self._began_s: float | None = None
        """When it began with what it is at; None while it waits for a fragment."""

    @property
    def busy_s(self) -> float:
        """How long it has been at one fragment, or at another champion, in seconds."""
        began_s = self._began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

    def run(self) -> None:
        """Take fragments, learn, and answer, until told to stop."""
        while not self._stop.is_set():
            self._began_s = None
            try:
                if self._learner is None:
                    self._stop.wait(_POLL_S)
                    self._began_s = time.monotonic()
                    self._poll()
                else:
                    self._learn(self._learner)
            except ray.exceptions.RayActorError as error:
                log.warning("the live market does not answer", reason=str(error).splitlines()[0])
                self._sent = ()
                self._stop.wait(_POLL_S)

    def _learn(self, learner: OnlineLearner | SharedLearning) -> None:
        fragment: Fragment | None = ray.get(self._live.next_fragment.remote(_FRAGMENT_TIMEOUT_S))
        self._began_s = time.monotonic()
        self._poll()
        if fragment is None:
            return
        learner.follow(fragment.account_champion)
        self._renew_held_out()
        learner.learn(fragment.rollout)
        self._reply(fragment.id)

    def _poll(self) -> None:
        """Follow what the owner, or a drawdown of the account, made of the champion.

        Then send what waits for the account to take it up.
        """
        if self._lockstep:
            return
        account_champion: AccountChampion | None = ray.get(self._live.account_champion.remote())
        if account_champion is None:
            return
        (self._learner or self._manager).follow(account_champion)
        waiting = self._manager.waiting
        if waiting and (waiting != self._sent or time.monotonic() - self._sent_s > _AGAIN_S):
            self._reply(None)

    def _reply(self, fragment: FragmentId | None) -> None:
        answer = LearnerReply(fragment, self._manager.waiting)
        self._sent, self._sent_s = answer.decisions, time.monotonic()
        report = self._learner.report if self._learner else None
        figures = learner_figures(report or LearnerReport())
        status = asdict(report) if report else {}
        ray.get(self._live.deliver.remote(answer, figures, status))

    def _renew_held_out(self) -> None:
        if self._held_out is None:
            return
        try:
            self._held_out.renew()
        except DataError as error:
            log.error("recorded days cannot be held out", reason=str(error))


def learner_figures(report: LearnerReport) -> LearnerFigures:
    """Return the learner's figures for the metrics."""
    return LearnerFigures(
        updates=report.live_updates,
        samples=report.live_samples,
        challenger_version=report.updates,
        refused_fragments=report.refused,
        lost_fragments=report.lost,
        restarts=report.restarts,
        rehearsed_samples=report.rehearsed_samples,
        missing_samples=report.missing_samples,
        judgement_seconds=report.judgement_seconds,
        kl_to_champion=report.kl_to_champion,
        rehearsal_return=report.rehearsal_return,
        policy_loss=report.policy_loss,
        value_loss=report.value_loss,
        entropy=report.entropy,
        kl=report.kl,
        explained_variance=report.explained_variance,
        clip_fraction=report.clip_fraction,
        grad_norm=report.grad_norm,
        update_s=report.seconds,
    )
