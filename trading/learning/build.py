"""Builds the algorithm: where its learner runs, what it trains on, what it starts from."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trading.config import Settings
from trading.envs.history import History, tell_single_days
from trading.envs.own_features import OwnFeatures
from trading.envs.rewards import RewardRule
from trading.envs.rules import TradingRules
from trading.errors import CheckpointError, ConfigError, LearnerLostError, LearningError
from trading.execution.fees import FeeSchedule
from trading.learning.checkpoints import BEGIN_ANEW, CheckpointStore, load_module_weights
from trading.learning.clstm import CLSTMConfig
from trading.learning.noted_catalogue import check_catalogue
from trading.learning.noted_settings import NOTED, check_options
from trading.learning.ppo import CLSTMPPO, CLSTMPPOConfig
from trading.learning.ppo_update import PPOSettings
from trading.logs import get_logger
from trading.market.randomisation import DEFAULT_DISTRIBUTION, MarketDistribution
from trading.progress import Pace

log = get_logger(__name__)

_SIMULATED = "trading.envs.vector_env.SimulatedOptionsVectorEnv"
_HISTORICAL = "trading.envs.vector_env.HistoricalOptionsVectorEnv"

_SIZE_LEVELS = "env.size_levels"
PRETRAINED = "pretrained"
"""In a checkpoint's metadata: decisions that a pre-training which has not ended learned from."""


class Placement(NamedTuple):
    """Where the learner runs."""

    num_learners: int
    """Ray actors that learn; 0 learns in the algorithm's own process."""
    gpus_per_learner: int
    resources: dict[str, float]
    """Custom resources of each learner."""

    @property
    def cpus_per_learner(self) -> int:
        """CPUs that a learner asks for: none where a GPU or a resource already says which node.

        An env runner asks for a CPU and starts first: it could take the one that the learner's
        node has, and the learner would wait for it for ever.
        """
        return 0 if self.gpus_per_learner or self.resources else 1

    @property
    def asked(self) -> dict[str, float]:
        """What Ray is asked for, for each learner."""
        asked = {"CPU": self.cpus_per_learner, "GPU": self.gpus_per_learner, **self.resources}
        return {name: amount for name, amount in asked.items() if amount}

    def describe(self) -> str:
        """One line for people."""
        device = "GPU" if self.gpus_per_learner else "CPU"
        if self.num_learners == 0:
            return f"learner: on {device}, in the driver's process"
        resources = "".join(f", resource {name!r}" for name in self.resources)
        return f"learner: {self.num_learners} actor(s) on {device}{resources}"


def place_learner(settings: Settings, cluster_gpus: float) -> Placement:
    """As the settings say; where they leave it open, a GPU when the cluster has one now.

    Raises
    ------
    ConfigError
        GPUs are wanted for learners and no learner.
    """
    learning = settings.learning
    resources = {learning.learner_resource: 1.0} if learning.learner_resource else {}
    gpus = learning.gpus_per_learner
    count = learning.num_learners
    if gpus and count == 0:
        raise ConfigError(
            [
                f"learning.gpus_per_learner: {gpus} with learning.num_learners 0, which learns in "
                "the driver's process: set learning.num_learners to 1 or more"
            ]
        )
    if gpus is None:
        gpus = 1 if cluster_gpus >= 1 else 0
    if count is None:
        count = 1 if gpus or resources else 0
    return Placement(count, gpus if count else 0, resources if count else {})


def training_environment(
    settings: Settings,
    rules: TradingRules,
    fees: FeeSchedule,
    distribution: MarketDistribution = DEFAULT_DISTRIBUTION,
    reward: RewardRule | None = None,
    features: OwnFeatures | None = None,
) -> dict[str, Any]:
    """Return the markets that are trained on, as RLlib's `env_config`.

    Raises
    ------
    ConfigError
        `learning.accounts_per_market` times `env.underlyings_per_account` does not divide
        `learning.num_envs`.
    DataError
        The history is missing, or was written for other rules.
    """
    learning, rows = settings.learning, settings.env.underlyings_per_account
    if learning.num_envs % rows:
        raise ConfigError(
            [
                f"env.underlyings_per_account: {rows} does not divide learning.num_envs "
                f"{learning.num_envs}, the rows of all accounts together"
            ]
        )
    given = {"reward": reward, "features": features}
    own = {name: each for name, each in given.items() if each is not None}
    if learning.history is not None:
        per_episode = settings.env.sessions_per_episode
        history = History(learning.history, rules, fees, features)
        history.common_days(rows)
        tell_single_days(history, per_episode, "training")
        return {
            "factory": _HISTORICAL,
            "rules": rules,
            "fees": fees,
            "history": str(learning.history),
            "sessions_per_episode": settings.env.sessions_per_episode,
            **own,
        }
    if learning.num_envs % (learning.accounts_per_market * rows):
        each = f" over env.underlyings_per_account {rows}" if rows > 1 else ""
        raise ConfigError(
            [
                f"learning.accounts_per_market: {learning.accounts_per_market} does not divide "
                f"learning.num_envs {learning.num_envs}{each}"
            ]
        )
    return {
        "factory": _SIMULATED,
        "rules": rules,
        "fees": fees,
        "accounts_per_market": learning.accounts_per_market,
        "sessions_per_episode": settings.env.sessions_per_episode,
        **distribution._asdict(),
        **own,
    }


def build_algorithm(
    settings: Settings,
    model: CLSTMConfig,
    rules: TradingRules,
    fees: FeeSchedule,
    placement: Placement,
    distribution: MarketDistribution = DEFAULT_DISTRIBUTION,
    reward: RewardRule | None = None,
    features: OwnFeatures | None = None,
) -> CLSTMPPO:
    """Return the algorithm as configured, with new weights from the seed.

    It learns in markets of this distribution.
    """
    learning = settings.learning
    markets = training_environment(settings, rules, fees, distribution, reward, features)
    config = (
        CLSTMPPOConfig()
        .environment(env_config=markets)
        .env_runners(
            num_env_runners=learning.num_env_runners,
            num_envs_per_env_runner=learning.num_envs,
            rollout_fragment_length=learning.rollout_length,
        )
        .learners(
            num_learners=placement.num_learners,
            num_cpus_per_learner=placement.cpus_per_learner,
            num_gpus_per_learner=placement.gpus_per_learner,
            custom_resources_per_learner=placement.resources,
        )
        .training(
            ppo=ppo_settings(settings),
            gamma=settings.discount,
            torch_threads=learning.threads,
            overlap=learning.overlap,
            answer_timeout_s=learning.answer_timeout_s,
        )
        .rl_module(model_config=model.architecture())
        .debugging(seed=settings.seed, log_level="ERROR")
    )
    algorithm: CLSTMPPO = config.build_algo()
    return algorithm


def ppo_settings(settings: Settings) -> PPOSettings:
    """Return the hyperparameters of the update."""
    return PPOSettings.of(settings.learning, settings.discount)


class Start(NamedTuple):
    """What an algorithm begins with."""

    origin: str | None
    """Where its weights come from; None when they are new."""
    pretrained: int | None
    """Decisions that a pre-training which has not ended learned from; None where all have ended."""
    settings: Mapping[str, Any] | None = None
    """That a checkpoint was learnt with, where it tells; see `noted_settings`."""


def warm_start(
    algorithm: CLSTMPPO,
    store: CheckpointStore,
    model_path: Path | None,
    catalogue: Mapping[str, Any] | None = None,
) -> Start:
    """Give the algorithm weights that were learnt before.

    The newest checkpoint of the store goes on where it ended. Without one, `model_path` gives the
    weights; without that, nothing is changed. `catalogue` as of `check_catalogue`.

    Raises
    ------
    CheckpointError
        The checkpoint or the model does not fit the configured network.
    """
    found = store.latest()
    if found is not None:
        path, metadata = found
        check_catalogue(path, metadata, catalogue)
        check_options(path, metadata)
        check_size_levels(algorithm.config.env_config.get("rules"), path, metadata)
        _restore(algorithm, path)
        origin = f"checkpoint {path.name} (version {metadata.get('version', metadata['step'])})"
        return Start(origin, metadata.get(PRETRAINED), metadata.get(NOTED, {}))
    if model_path is not None:
        check_catalogue(model_path, now=catalogue)
        check_options(model_path)
        weights = load_module_weights(model_path)
        try:
            algorithm.load_weights(weights)
        except Exception as error:
            raise CheckpointError(
                f"model {model_path} does not fit the configured network: {error}"
            ) from error
        return Start(f"model {model_path}", None)
    return Start(None, 0)


def revive(algorithm: CLSTMPPO, store: CheckpointStore) -> Path:
    """Bring an algorithm whose learner is lost back to the newest checkpoint; returns its path.

    Runners stay; they, too, go on from where the checkpoint has them.

    Raises
    ------
    CheckpointError
        The store holds no whole checkpoint.
    LearnerLostError
        No new learner could be started; it may be tried again.
    """
    found = store.latest()
    if found is None:
        raise CheckpointError(
            f"a learner is lost and {store.directory} holds no checkpoint to go on from: start "
            "again"
        )
    path, metadata = found
    algorithm.revive(path)
    version = metadata.get("version", metadata["step"])
    log.warning("lost learner revived", checkpoint=path.name, version=version)
    return path


class Pretraining(NamedTuple):
    """What a pre-training came to."""

    done: int
    """Decisions that it learned from, those before an interruption included."""
    checkpoint: Path
    """Its last one."""


def pretrain(
    algorithm: CLSTMPPO,
    store: CheckpointStore,
    steps: int,
    save_frequency: int,
    progress: Callable[[str], None],
    stopped: Callable[[], bool],
    done: int = 0,
    patience_s: float = 300.0,
) -> Pretraining:
    """Learn until `steps` sampled decisions were learned from; tells `progress` as it goes.

    A checkpoint is written before the first, after every `save_frequency` decisions, and at the
    end; a lost learner is revived from the last one. Until the end they say how far it has come,
    see `Start.pretrained`. Only decisions that were learned from count.

    Parameters
    ----------
    done
        Decisions that were learned from before an interruption; `algorithm` is restored from there.
    patience_s
        Seconds without an update, for want of rollouts or of a learner, after which it gives up.

    Raises
    ------
    LearningError
        Nothing was learned for `patience_s`.
    """
    before, lost = algorithm.steps_trained - done, False
    # Versions fall where learning began again from a champion; steps of checkpoints only rise.
    ahead = max([algorithm.weights_version, *store.steps()]) - algorithm.weights_version

    def save() -> Path:
        version = algorithm.weights_version
        metadata = {"step": version + ahead, "version": version}
        if done < steps:
            metadata[PRETRAINED] = done
        return store.save(algorithm.save_to_path, metadata)

    path, saved, learned_at = save(), done, time.monotonic()
    pace = Pace(steps, done)
    while done < steps and not stopped():
        try:
            if lost:
                revive(algorithm, store)
                lost, done = False, algorithm.steps_trained - before
                saved = done
            results = algorithm.train()
        except LearnerLostError as error:
            if time.monotonic() - learned_at > patience_s:
                raise
            log.error("learner lost", reason=str(error))
            lost = True
            continue
        if algorithm.steps_trained - before > done:
            done, learned_at = algorithm.steps_trained - before, time.monotonic()
        elif time.monotonic() - learned_at > patience_s:
            raise LearningError(
                f"no environment runner delivered a rollout for {patience_s:.0f} s: see the "
                "runners' logs; learning.num_env_runners=0 samples in the algorithm's own process"
            )
        if done - saved >= save_frequency and done < steps:
            path, saved = save(), done
        told = pace.told(done)
        earned = _earned(algorithm, results)
        progress(f"pre-training {done:,} of {steps:,} decisions{told and f', {told}'}{earned}")
    if done > saved:
        path = save()
    return Pretraining(done, path)


def _earned(algorithm: CLSTMPPO, results: dict[str, Any]) -> str:
    # Of equity: a reward may have the risk taken off.
    equity = results["env_runners"].get("episode_equity_mean", float("nan"))
    percent = 100.0 * (equity / algorithm.config.env_config["rules"].initial_capital - 1.0)
    return f", return a day {percent:+.2f} %" if np.isfinite(percent) else ""


def check_size_levels(rules: TradingRules | None, path: Path, metadata: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose openings have another number of sizes than the rules ask for.

    Raises
    ------
    CheckpointError
        It has; the message names the setting.
    """
    then = metadata.get(NOTED, {}).get(_SIZE_LEVELS, 1)
    now = 1 if rules is None else rules.size_levels
    if then != now:
        raise CheckpointError(
            f"checkpoint {path} was learnt with {_SIZE_LEVELS} {then}, and {now} is set: set it "
            f"back, {BEGIN_ANEW}"
        )


def _restore(algorithm: CLSTMPPO, path: Path) -> None:
    try:
        algorithm.restore_from_path(path)
    except Exception as error:
        raise CheckpointError(
            f"checkpoint {path} does not fit the configuration ({error}): use the settings it "
            f"was written with, {BEGIN_ANEW}"
        ) from error
