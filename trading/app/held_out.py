"""The sessions that challengers and champions are held to, and which nothing trains on."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from trading.config import Settings
from trading.data.recording import load_recording, recorded_runs
from trading.envs.history import History, tell_single_days, write_history
from trading.envs.own_features import OwnFeatures
from trading.envs.rules import TradingRules
from trading.errors import ConfigError, DataError
from trading.evaluation.backtest import history_returns, simulation_returns
from trading.execution.fees import FeeSchedule
from trading.learning.champion.gate import Gate, HeldOut, Returns, SessionTrader
from trading.learning.champion.gate_sessions import check_enough, half_of_sessions
from trading.live import assembly
from trading.live.simulated_world import simulated_world
from trading.logs import get_logger
from trading.market.calendar import ExchangeCalendar
from trading.market.randomisation import MarketDistribution

log = get_logger(__name__)

_SIMULATED, _HISTORY, _RECENT = "simulated", "history", "recent"
_SEED_KEY = 0x9A7E


class HeldOutSessions:
    """Builds the gate, and renews it when another recorded day is over.

    Raises
    ------
    DataError
        `learning.gate.history` is missing, was written for other rules, or has no date of
        `env.underlyings_per_account` underlyings.
    ConfigError
        A day of it is trained on as well, or `learning.gate.sessions` are too few episodes.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules = assembly.trading_rules(settings)
        self._fees = assembly.fee_schedule(settings)
        self._features = assembly.own_features(settings)
        self._distribution = simulated_world(settings.market).distribution
        self._recordings = assembly.recordings_path(settings)
        self._recent = settings.paths.state_dir / "held-out" / _RECENT
        self._known: list[date] | None = None
        gate = settings.learning.gate
        check_enough(settings)
        self._judgements = 0
        self._fixed = [HeldOut(_SIMULATED, self._trade_simulated, self._take_other_sessions)]
        if gate.history is not None:
            history = self._open(gate.history)
            self._check_apart(history)
            history.common_days(settings.env.underlyings_per_account, each_once=True)
            tell_single_days(history, settings.env.sessions_per_episode, "the gate")
            self._fixed.append(HeldOut(_HISTORY, self._days(gate.history)))
        limits = assembly.gate_limits(settings)
        acting = settings.policy.act
        self.gate = Gate(assembly.model_config(settings), limits, self._fixed, acting)
        self.renew()

    def renew(self) -> None:
        """Hold out the newest recorded days, if there are others than before."""
        days = sorted({run.day for run in recorded_runs(self._recordings)})
        if days == self._known:
            return
        self._known = days
        if self._write_recent(days):
            recent = HeldOut(_RECENT, self._days(self._recent))
            self.gate.hold_out([*self._fixed, recent])
        else:
            self.gate.hold_out(self._fixed, missing=[_RECENT])

    def _open(self, folder: Path) -> History:
        return History(folder, self._rules, self._fees, self._features)

    def _check_apart(self, held_out: History) -> None:
        """Refuse a day of the gate's history that is trained on as well."""
        learning = self._settings.learning
        if learning.history is None:
            return
        days, trained = (
            {(day.underlying, day.date) for day in history.days}
            for history in (held_out, self._open(learning.history))
        )
        if both := sorted(days & trained):
            raise ConfigError(
                [
                    f"learning.gate.history: {both[0][0]} {both[0][1]} of {learning.gate.history} "
                    f"is in learning.history {learning.history} too; hold out days that are not "
                    "trained on"
                ]
            )

    def _write_recent(self, days: list[date]) -> bool:
        """Compile the newest days that were recorded from open to close; whether any can be traded.

        They cannot where accounts trade more underlyings than were recorded of any date.
        """
        settings, sessions, taken = self._settings, [], 0
        for day in reversed(days):
            if taken == settings.learning.gate.recent_days:
                break
            whole = []
            for symbol in settings.symbols:
                try:
                    told = load_recording(self._recordings, day, symbol)
                except DataError as error:
                    log.warning("a recorded day is left out", reason=str(error))
                    continue
                if told.is_complete:
                    whole.append(told)
            sessions += whole
            taken += bool(whole)
        if not sessions:
            return False
        nights, between = settings.env.sessions_per_episode > 1, {}
        if nights:
            # In order, so that each goes on from the one before it.
            sessions.sort(key=lambda told: told.session.date)
            between = assembly.between_sessions(settings)._asdict()
        rules = (self._rules, self._fees, ExchangeCalendar())
        features = self._features
        write_history(self._recent, sessions, *rules, nights=nights, features=features, **between)
        written = self._open(self._recent)
        try:
            written.common_days(settings.env.underlyings_per_account, each_once=True)
        except DataError as error:
            log.warning("recorded days are not held out", reason=str(error))
            return False
        log.info("recorded days are held out", days=taken, sessions=len(sessions))
        return True

    def _take_other_sessions(self) -> None:
        self._judgements += 1

    def _trade_simulated(self, trader: SessionTrader) -> Returns:
        """Sessions that are always the same, and as many that each judgement has for itself."""
        half = half_of_sessions(self._settings)
        played = [self._markets(half, 0), self._markets(half, self._judgements)]
        return np.concatenate([each(trader) for each in played])

    def _markets(self, sessions: int, judgement: int) -> "HeldOutMarkets":
        seed = held_out_seed(self._settings.seed, judgement)
        per_episode = self._settings.env.sessions_per_episode
        made_for = (self._rules, self._fees, self._distribution, per_episode, self._features)
        return HeldOutMarkets(sessions, seed, *made_for)

    def _days(self, folder: Path) -> "HeldOutDays":
        per_episode = self._settings.env.sessions_per_episode
        return HeldOutDays(folder, self._rules, self._fees, per_episode, self._features)


@dataclass(frozen=True)
class HeldOutMarkets:
    """Simulated sessions, the same ones each time, as one held-out set."""

    sessions: int
    seed: int
    rules: TradingRules
    fees: FeeSchedule
    distribution: MarketDistribution
    sessions_per_episode: int
    features: OwnFeatures | None = None

    def __call__(self, trader: SessionTrader) -> Returns:
        rules, per_episode = (self.rules, self.fees), self.sessions_per_episode
        return simulation_returns(
            self.sessions, self.seed, *rules, trader, self.distribution, per_episode, self.features
        )


@dataclass(frozen=True)
class HeldOutDays:
    """Every day of a history, as one held-out set."""

    folder: Path
    rules: TradingRules
    fees: FeeSchedule
    sessions_per_episode: int
    features: OwnFeatures | None = None

    def __call__(self, trader: SessionTrader) -> Returns:
        rules, per_episode = (self.rules, self.fees), self.sessions_per_episode
        return history_returns(self.folder, *rules, trader, per_episode, self.features)


def held_out_seed(seed: int, judgement: int) -> int:
    """Return a seed that no runner has: theirs are small numbers beside the setting."""
    key = [seed, _SEED_KEY, *([judgement] if judgement else [])]
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
