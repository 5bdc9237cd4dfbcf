"""The settings tree: every setting's type, default, and the one sentence that explains it."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, SecretStr, field_validator

from trading.config.fields import (
    AccountId,
    Acting,
    Count,
    CountOrZero,
    Date,
    ExistingPath,
    FilePath,
    FilePaths,
    Fraction,
    Horizon,
    HttpUrl,
    Names,
    NotNegative,
    Percent,
    Port,
    Positive,
    StrategyName,
    Symbols,
    Text,
    WebSocketUrl,
    horizon_seconds,
)
from trading.config.market import MarketSettings
from trading.config.section import Section
from trading.config.section import about as _about


class AccountSettings(Section):
    """The paper-trading account."""

    id: Annotated[AccountId, _about("Name of the account; its journal and orders carry it.")] = (
        "paper"
    )
    initial_capital: Annotated[
        Positive, _about("Cash on the account's first day, in USD.", env="INITIAL_CAPITAL")
    ] = 100_000.0
    max_positions: Annotated[
        Count, _about("Most strategies open at the same time.", env="MAX_POSITIONS")
    ] = 10


class PathSettings(Section):
    """Where state lives on disk."""

    state_dir: Annotated[FilePath, _about("Folder of the journal and of all other state.")] = Path(
        "var"
    )
    checkpoint_dir: Annotated[
        FilePath | None,
        _about("Folder of the checkpoints; unset: state_dir/checkpoints.", env="CHECKPOINT_DIR"),
    ] = None
    model_path: Annotated[
        ExistingPath | None,
        _about("Model to begin with when there is no checkpoint to resume.", env="MODEL_PATH"),
    ] = None

    @property
    def checkpoints(self) -> Path:
        """`checkpoint_dir`, or `state_dir/checkpoints` where that is unset."""
        return self.checkpoint_dir or self.state_dir / "checkpoints"


class CredentialSettings(Section):
    """Secrets, read from environment variables and from nowhere else."""

    massive_api_key: Annotated[
        SecretStr | None, _about("API key of Massive.com.", env="MASSIVE_API_KEY")
    ] = None
    s3_access_key: Annotated[
        SecretStr | None, _about("Access key of the flat files.", env="S3_ACCESS_KEY")
    ] = None
    s3_secret_key: Annotated[
        SecretStr | None, _about("Secret key of the flat files.", env="S3_SECRET_KEY")
    ] = None

    massive_api_keys: Annotated[
        SecretStr | None,
        _about(
            "API keys of Massive.com that `trading feed` shares quotes out among, with blanks "
            "between; unset: massive_api_key alone.",
            env="MASSIVE_API_KEYS",
        ),
    ] = None
    feed_keys: Annotated[
        SecretStr | None,
        _about(
            "Keys that readers of `trading feed` show it, with blanks between; unset: the "
            "vendor's, which none but this machine may see.",
            env="FEED_KEYS",
        ),
    ] = None

    control_token: Annotated[
        SecretStr | None,
        Field(min_length=16),
        _about(
            "Bearer token of the owner's commands by HTTP, 16 characters or more; unset: they are "
            "refused.",
            env="CONTROL_TOKEN",
        ),
    ] = None

    notify_urls: Annotated[
        SecretStr | None,
        _about(
            "Where messages go, with blanks between: addresses of Apprise, as in "
            "mailto://user:password@host or slack://token; unset: nowhere.",
            env="NOTIFY_URLS",
        ),
    ] = None

    @field_validator("*", mode="before")
    @classmethod
    def _without_blanks_around(cls, value: object) -> object:
        """Take off the end of the line that a Secret made of a file or by `echo` has."""
        return value.strip() if isinstance(value, str) else value

    @property
    def notify_addresses(self) -> tuple[str, ...]:
        """The addresses of `notify_urls`."""
        return tuple(self.notify_urls.get_secret_value().split()) if self.notify_urls else ()

    @property
    def vendor_keys(self) -> tuple[str, ...]:
        """The keys of `massive_api_keys`, or the one of `massive_api_key`."""
        keys = self.massive_api_keys or self.massive_api_key
        return tuple(keys.get_secret_value().split()) if keys else ()

    @property
    def reader_keys(self) -> tuple[str, ...]:
        """The keys of `feed_keys`, or the vendor's."""
        keys = self.feed_keys
        return tuple(keys.get_secret_value().split()) if keys else self.vendor_keys

    def values(self) -> tuple[str, ...]:
        """Return the secrets that are set, in clear, for redaction."""
        secrets = (
            self.massive_api_key,
            self.s3_access_key,
            self.s3_secret_key,
            self.control_token,
        )
        set_ones = (secret.get_secret_value() for secret in secrets if secret is not None)
        listed = (self.massive_api_keys, self.feed_keys)
        words = (word for each in listed if each for word in each.get_secret_value().split())
        return (*set_ones, *words, *self.notify_addresses)


class MassiveSettings(Section):
    """The connection to Massive.com."""

    websocket_url: Annotated[WebSocketUrl, _about("Address of the stream, without the feed.")] = (
        "wss://socket.massive.com"
    )
    rest_url: Annotated[HttpUrl, _about("Address of the REST service.")] = "https://api.massive.com"
    feed_url: Annotated[
        HttpUrl | None,
        _about(
            "Address of a `trading feed` that is read in place of both addresses above, as "
            "in http://127.0.0.1:8765; its key is MASSIVE_API_KEY then; unset: the vendor's own.",
            env="FEED_URL",
        ),
    ] = None
    silence_timeout_s: Annotated[
        Positive, _about("A connection without data for so many seconds is opened anew.")
    ] = 120.0
    luld: Annotated[
        bool,
        _about(
            "Whether price limits and halts of stocks (LULD) are subscribed to, which only "
            "real-time plans include: a stock at its limit, or told to be halted, is suspended."
        ),
    ] = False
    halt_indicators: Annotated[
        list[int],
        _about(
            "Indicators of LULD events that say that a stock is halted; the vendor's is 17, which "
            "it tells of stocks listed on Nasdaq only."
        ),
    ] = [17]

    @property
    def stream_address(self) -> str:
        """Where the stream is read: of the feed, where there is one, else of the vendor."""
        return f"ws{self.feed_url.removeprefix('http')}" if self.feed_url else self.websocket_url

    @property
    def rest_address(self) -> str:
        """Where the REST service is asked: of the feed, where there is one, else of the vendor."""
        return self.feed_url or self.rest_url


class RareEventSettings(Section):
    """What a simulated exchange does rarely: mean number a year and underlying; 0: never.

    More often than in the life of most companies, so that a year meets them. A company's splits,
    dividends, renames and delistings keep a quarter of a year between them.
    """

    splits: Annotated[NotNegative, _about("Splits a year: forward, reverse and uneven.")] = 0.6
    special_dividends: Annotated[
        NotNegative, _about("Special dividends a year, 1 to 8 percent of the price.")
    ] = 0.6
    renames: Annotated[
        NotNegative, _about("Changes of the symbol a year; the old one comes back after a quarter.")
    ] = 0.5
    delistings: Annotated[
        NotNegative, _about("Delistings a year; the stock is listed again after a quarter.")
    ] = 0.4
    halts: Annotated[
        NotNegative,
        _about("Halts a year: 7 of 10 for minutes, others to the close or for a whole session."),
    ] = 4.0
    bad_prints: Annotated[
        NotNegative,
        _about("Sessions a year with a burst of crossed and absurd quotes and prices."),
    ] = 20.0


class SimulationSettings(Section):
    """The simulated exchange."""

    first_session: Annotated[Date, _about("Date on which the simulated world begins.")] = dt.date(
        2026, 1, 5
    )
    speed: Annotated[
        NotNegative, _about("Exchange seconds per second; 0: as fast as clients read.")
    ] = 60.0
    step_seconds: Annotated[Count, _about("Exchange seconds between two quote updates.")] = 5
    rare_events: RareEventSettings = RareEventSettings()


class ReplaySettings(Section):
    """A recorded day, read from flat files, recordings or the catalogue."""

    folder: Annotated[
        FilePath | None,
        _about("Folder in the vendor's flat-file layout, of recordings, or of a catalogue."),
    ] = None
    date: Annotated[Date | None, _about("The recorded day.")] = None
    speed: Annotated[
        NotNegative, _about("Exchange seconds per second; 0: as fast as it is read.")
    ] = 0.0


class MarketServerSettings(Section):
    """The market server that simulation and replay stream from."""

    host: Annotated[Text, _about("Address that the market server listens on.")] = "127.0.0.1"
    port: Annotated[Port, _about("Port of the market server; 0: any free one.")] = 0


class DataSettings(Section):
    """Where market data comes from."""

    source: Annotated[
        Literal["simulation", "massive", "replay"],
        _about("Simulated exchange, Massive.com, or a recorded day."),
    ] = "simulation"
    bar_seconds: Annotated[Count, _about("Exchange seconds between two decisions.")] = 60
    max_quote_contracts: Annotated[
        Count, _about("Most option contracts whose quotes are subscribed to.")
    ] = 1000
    bar_grace_ms: Annotated[
        CountOrZero, _about("Milliseconds that a decision waits for late quotes of its bar.")
    ] = 0
    max_ahead_ms: Annotated[
        CountOrZero,
        _about(
            "Milliseconds that an event may be dated ahead of the clock; a later one is refused."
        ),
    ] = 2000
    max_decision_lag_s: Annotated[
        Positive,
        _about("Seconds after its end from which on a bar of a live market trades nothing."),
    ] = 10.0
    band_spreads: Annotated[
        Positive,
        _about(
            "Typical spreads that a quote may be off what the chain implies; beyond them and "
            "band_pct it is kept apart until something confirms it."
        ),
    ] = 10.0
    band_pct: Annotated[
        Positive,
        _about("Percent of the underlying's price that a quote may be off what the chain implies."),
    ] = 1.0
    max_jump_pct: Annotated[
        Positive,
        _about(
            "Percent that an underlying may move between two prices; one that moves more counts "
            "when the chain or another price confirms it."
        ),
    ] = 10.0
    accept_journal_ahead: Annotated[
        bool,
        _about(
            "Whether a live account whose journal is dated ahead of the clock, as after a run with "
            "a wrong clock, trades on now instead of when that time has come."
        ),
    ] = False
    record: Annotated[bool, _about("Whether live days are recorded, in state_dir/recordings.")] = (
        False
    )
    dividends: Annotated[
        FilePath | None,
        _about("CSV of underlying, ex_date, amount; unset: the vendor is asked by REST."),
    ] = None
    corporate_actions: Annotated[
        FilePath | None,
        _about(
            "CSV of underlying, ex_date, kind, new_symbol, ratio, cash; added to what the vendor "
            "tells by REST."
        ),
    ] = None
    unexplained_gap_pct: Annotated[
        Positive,
        _about(
            "Move of an underlying from one session to the next, in percent of its price, that "
            "suspends it unless a corporate action explains it."
        ),
    ] = 32.0
    official_close_delay_s: Annotated[
        NotNegative,
        _about("Seconds after a close before its official price is asked for."),
    ] = 300.0
    treasury_yields: Annotated[
        bool,
        _about("Whether the rate comes from the vendor's treasury yields at each session's start."),
    ] = True
    massive: MassiveSettings = MassiveSettings()
    simulation: SimulationSettings = SimulationSettings()
    replay: ReplaySettings = ReplaySettings()
    server: MarketServerSettings = MarketServerSettings()


class ExecutionSettings(Section):
    """What a fill costs."""

    commission: Annotated[
        NotNegative, _about("Broker's commission in USD per contract.", env="COMMISSION")
    ] = 0.65
    exchange_fee: Annotated[NotNegative, _about("Exchange's fee in USD per contract.")] = 0.0
    orf_fee: Annotated[
        NotNegative, _about("Options Regulatory Fee of all exchanges in USD per contract.")
    ] = 0.02815
    occ_fee: Annotated[NotNegative, _about("OCC's clearing fee in USD per contract.")] = 0.025
    taf_fee: Annotated[
        NotNegative, _about("FINRA's Trading Activity Fee in USD per contract sold.")
    ] = 0.00329
    sec_fee_per_million: Annotated[
        NotNegative, _about("SEC's Section 31 fee in USD per million of sales, options and stock.")
    ] = 20.60
    stock_commission: Annotated[
        NotNegative, _about("Broker's commission in USD per share of stock.")
    ] = 0.0
    stock_taf_fee: Annotated[
        NotNegative, _about("FINRA's Trading Activity Fee in USD per share sold.")
    ] = 0.000195
    stock_taf_cap: Annotated[
        NotNegative, _about("Most of that fee that the shares of one order pay, in USD.")
    ] = 9.79
    cash_interest_pct: Annotated[
        float,
        Field(ge=-20, le=50),
        _about("Interest on cash above zero in percent a year, booked at each session's close."),
    ] = 0.0
    borrow_fee_pct: Annotated[
        NotNegative,
        _about("Fee for borrowing stock that is held short, in percent of its value a year."),
    ] = 0.0
    style: Annotated[
        Literal["touch", "share_of_spread", "working"],
        _about(
            "How much of the spread a fill pays: all of it; or 75, 66, 56 and 53 percent of it "
            "for 1, 2, 3 and more legs; or what a limit order at mid comes to that works towards "
            "the touch."
        ),
    ] = "touch"
    working_steps: Annotated[
        Count,
        _about("In so many bars a working order comes from mid to the touch, with style=working."),
    ] = 4
    slippage: Annotated[
        NotNegative, _about("USD per share and leg that a fill is worse than its style says.")
    ] = 0.0
    stock_half_spread_bps: Annotated[
        NotNegative,
        _about("Half the spread of a stock around its last price, in basis points of it."),
    ] = 1.0
    fee_schedule: Annotated[
        Text | None,
        _about(
            "Fee schedule that takes the place of the fees above, by the name that a file of "
            "plugins registers; unset: the fees above."
        ),
    ] = None
    max_quote_age_s: Annotated[
        Positive, _about("A quote older than so many seconds fills nothing.")
    ] = 90.0


class RiskSettings(Section):
    """The limits that an order is checked against before it is matched."""

    max_contracts_per_order: Annotated[Count, _about("Most option contracts in one order.")] = 20
    max_order_notional: Annotated[
        Positive, _about("Most USD of premium and of stock that change hands in one order.")
    ] = 100_000.0
    max_daily_loss_pct: Annotated[
        Percent, _about("Loss that halts trading, in percent of the day's opening equity.")
    ] = 5.0
    max_drawdown_pct: Annotated[
        Percent, _about("Loss from the peak equity, in percent of it, that leaves only closing.")
    ] = 25.0
    max_delta_pct: Annotated[
        Positive, _about("Most delta of the account in USD (shares times spot), in % of equity.")
    ] = 200.0
    max_gamma_pct: Annotated[
        Positive, _about("Most change of that delta for a 1 % move, in percent of equity.")
    ] = 300.0
    max_vega_pct: Annotated[
        Positive, _about("Most USD per volatility point, in percent of equity.")
    ] = 5.0
    wind_down: Annotated[
        Literal["close", "policy"],
        _about(
            "Whether positions of an underlying that was taken out of symbols are closed at the "
            "next bars, or left to the policy, which may hold them."
        ),
    ] = "close"
    min_short_equity: Annotated[
        Positive, _about("USD of equity that selling short needs (FINRA Rule 4210(b)).")
    ] = 2_000.0
    allow_naked_shorts: Annotated[
        bool, _about("Whether uncovered options and stock may be sold, at Reg-T margin.")
    ] = False
    max_orders_per_minute: Annotated[Count, _about("Most orders in a minute of exchange time.")] = (
        30
    )
    risk_per_trade_pct: Annotated[
        Percent, _about("Equity that one new position may lose at most, in percent.")
    ] = 5.0
    secured_pct: Annotated[
        Percent,
        _about("Equity that one covered call or cash-secured put may tie up, in percent."),
    ] = 75.0


class SafetySettings(Section):
    """What happens to open positions while nobody decides, sees or drives."""

    patience_s: Annotated[
        Positive,
        _about(
            "Seconds of market time with positions open and no decision, no event of the feed, no "
            "word of the driver, or a wrong clock, until the account reduces or flattens."
        ),
    ] = 300.0
    unattended: Annotated[
        Literal["reduce", "flatten", "nothing"],
        _about("What the account does then; it goes on by itself when all is well again."),
    ] = "reduce"
    hang_s: Annotated[
        Positive,
        _about(
            "Seconds without a sign of life of the trading thread, or of its process, until the "
            "process is ended and started again from the journal."
        ),
    ] = 120.0


class NotificationSettings(Section):
    """Messages to the owner; where they go is NOTIFY_URLS, a secret."""

    interval_s: Annotated[
        Positive, _about("Least seconds between two messages; what comes between is in one digest.")
    ] = 60.0
    rejections_in_a_row: Annotated[
        Count, _about("Rejected orders without a fill between them that are worth a message.")
    ] = 20
    disk_free_pct: Annotated[
        Percent, _about("Free space of a disk, in percent of it, below which the owner is told.")
    ] = 5.0


class EnvironmentSettings(Section):
    """The market as the policy sees it."""

    risk_free_rate_pct: Annotated[
        float,
        Field(ge=-5, le=50),
        _about(
            "Risk-free rate that options are read with, in percent a year, continuously "
            "compounded; live trading takes the vendor's where data.treasury_yields is on."
        ),
    ] = 4.0
    no_open_minutes_before_close: Annotated[
        CountOrZero, _about("Minutes before the close in which no position is opened.")
    ] = 10
    reward_scale: Annotated[
        Positive, _about("Factor on the change of equity over initial capital.")
    ] = 100.0
    risk_aversion: Annotated[
        NotNegative,
        _about(
            "How much the reward subtracts for the risk of each bar, as the coefficient of "
            "mean-variance utility; 0: nothing. Gate and backtests judge money alone."
        ),
    ] = 0.0
    risk_measure: Annotated[
        Literal["variance", "downside", "drawdown"],
        _about(
            "What counts as a bar's risk: half its squared return, the square of its loss, or by "
            "how much it deepens the drawdown from the account's peak."
        ),
    ] = "variance"
    reward: Annotated[
        Text | None,
        _about(
            "Reward that takes the place of this one, by the name that a file of plugins "
            "registers; unset: this one."
        ),
    ] = None
    features: Annotated[
        Names,
        _about(
            "Features that are added to what the policy sees, in this order, by the names that a "
            "file of plugins registers, with commas in text; models and histories are made for "
            "them."
        ),
    ] = ()
    structures: Annotated[
        Names,
        _about(
            "Option structures whose actions are added to the catalogue's, in this order, by the "
            "names that a file of plugins registers, with commas in text; models and histories are "
            "made for them."
        ),
    ] = ()
    size_levels: Annotated[
        int,
        Field(ge=1, le=10),
        _about(
            "Sizes of each opening action: all that is allowed, and equal parts of it; models are "
            "made for one number."
        ),
    ] = 1
    underlyings_per_account: Annotated[
        int,
        Field(ge=1, le=20),
        _about(
            "Underlyings that one account of training, backtests and the gate trades with one cash "
            "and one set of limits; with more than 1 the policy also sees what is open on the "
            "others, live too. Models are made for 1 or for more."
        ),
    ] = 1
    sessions_per_episode: Annotated[
        Count,
        _about(
            "Sessions in a row that one account trades in training, backtests and the gate, "
            "through nights, expiries and assignments; as often the live policy's memory begins "
            "anew. Histories know nights where they were written with more than 1."
        ),
    ] = 10


class ModelSettings(Section):
    """The shape of the cascaded LSTM."""

    feature_hidden: Annotated[Count, _about("Units of the LSTM that reads the features.")] = 64
    actor_hidden: Annotated[Count, _about("Units of the actor's LSTM.")] = 64
    critic_hidden: Annotated[Count, _about("Units of the critic's LSTM.")] = 64
    layer_norm: Annotated[
        bool, _about("Whether what it gives actor and critic is layer-normalised.")
    ] = False


class PolicySettings(Section):
    """How actions follow from the policy's distribution."""

    act: Annotated[
        Acting,
        _about(
            "Live, in the gate and in backtests: sampled, greedy (the most likely action), or a "
            "temperature by which the log probabilities are divided before an action is drawn."
        ),
    ] = "sampled"
    trader: Annotated[
        Text | None,
        _about(
            "Rule-based trader that trades in place of the learned policy, by the name that a file "
            "of plugins registers; nothing is learned then; unset: the policy."
        ),
    ] = None


class GateSettings(Section):
    """What a challenger must pass before it trades, and when the champion stops trading."""

    updates: Annotated[
        Count, _about("Learner updates between two judgements of the challenger.")
    ] = 1
    sessions: Annotated[
        int,
        Field(ge=20),
        _about(
            "Simulated sessions, never trained on, that challenger and champion both trade: half "
            "of them always the same, half others at each judgement; at least 20 episodes of "
            "env.sessions_per_episode."
        ),
    ] = 240
    history: Annotated[
        FilePath | None,
        _about("History whose days both trade as well, never trained on; unset: none."),
    ] = None
    recent_days: Annotated[
        CountOrZero, _about("Newest recorded live days that both trade as well; 0: none.")
    ] = 5
    confidence: Annotated[
        float,
        Field(ge=0.5, lt=1),
        _about(
            "Confidence that no challenger is promoted who loses the margin, over all judgements "
            "against one champion."
        ),
    ] = 0.95
    margin_pct: Annotated[
        Positive,
        _about(
            "Percent of the initial capital a session that a challenger may be worse by; 0.02 is "
            "5 % of it a year."
        ),
    ] = 0.02
    max_kl: Annotated[
        Positive, _about("Largest KL divergence of a challenger from the champion, in nats.")
    ] = 0.1
    patience: Annotated[
        Count, _about("Rejections in a row after which learning begins again from the champion.")
    ] = 5
    max_drawdown_pct: Annotated[
        Percent,
        _about("Loss from the peak equity under a champion, in percent of it, that rolls it back."),
    ] = 8.0


class LearningSettings(Section):
    """How and where the policy learns."""

    online: Annotated[bool, _about("Whether the policy keeps learning while it trades.")] = True
    update_frequency: Annotated[
        Count, _about("Live decisions between two learner updates.", env="UPDATE_FREQUENCY")
    ] = 64
    save_frequency: Annotated[
        Count, _about("Live decisions between two checkpoints.", env="SAVE_FREQUENCY")
    ] = 1024
    keep_checkpoints: Annotated[
        Count,
        _about(
            "Checkpoints kept; older ones are removed. Of an account's champions the newest four "
            "stay in any case."
        ),
    ] = 5
    lockstep: Annotated[
        bool | None,
        _about("Whether trading waits for each update; unset: only in a replay at speed 0."),
    ] = None
    pretrain_steps: Annotated[
        CountOrZero, _about("Simulated decisions learned from before the first trade.")
    ] = 40_000
    pretrain_save_frequency: Annotated[
        Count, _about("Decisions of pre-training between two checkpoints.")
    ] = 100_000
    history: Annotated[
        FilePath | None,
        _about("History whose days are trained on, see `trading history`; unset: simulated ones."),
    ] = None
    rehearsal_share: Annotated[
        float,
        Field(ge=0, lt=1),
        _about("Share of each live update's decisions that come from training markets."),
    ] = 0.5
    gate: GateSettings = GateSettings()
    num_envs: Annotated[
        Count,
        _about(
            "Accounts stepped at once per runner; with env.underlyings_per_account K above 1, rows "
            "of accounts: each has K."
        ),
    ] = 64
    accounts_per_market: Annotated[
        Count,
        _about("Accounts that trade the same simulated market; more are faster, and see fewer."),
    ] = 1
    rollout_length: Annotated[Count, _about("Decisions per market in one rollout.")] = 64
    num_env_runners: Annotated[
        CountOrZero, _about("Ray actors that sample; 0: the algorithm samples itself.")
    ] = 0
    overlap: Annotated[
        bool, _about("Whether Ray actors sample while the learner updates, one update behind.")
    ] = True
    num_learners: Annotated[
        CountOrZero | None,
        _about("Ray actors that learn; 0: in the algorithm; unset: as the cluster allows."),
    ] = None
    threads: Annotated[
        Count,
        _about(
            "Threads that share out a minibatch where the learner is on a CPU; more are faster "
            "where cores are free, and trading needs one."
        ),
    ] = 1
    gpus_per_learner: Annotated[
        CountOrZero | None,
        _about(
            "GPUs that each learner asks for, and waits for; unset: one where the cluster has one "
            "at the start.",
            env="GPUS_PER_LEARNER",
        ),
    ] = None
    learner_resource: Annotated[
        Text | None, _about("Custom Ray resource of the nodes that may hold a learner.")
    ] = None
    horizon: Annotated[
        Horizon,
        _about(
            "Market time after which income counts 1/e of what it counts now, as in 5 sessions, "
            "2 hours or 100 minutes; a night passes in one bar."
        ),
    ] = "100 minutes"
    gamma: Annotated[
        Fraction | None,
        _about(
            "Discount of the next decision's value, in place of a horizon; unset: it follows from "
            "learning.horizon and data.bar_seconds."
        ),
    ] = None
    gae_lambda: Annotated[
        Fraction, _about("Decay of generalised advantage estimation (arXiv:1506.02438).")
    ] = 0.95
    learning_rate: Annotated[Positive, _about("Step size of Adam.")] = 3e-4
    clip: Annotated[Positive, _about("PPO's bound on the probability ratio's distance from 1.")] = (
        0.2
    )
    epochs: Annotated[Count, _about("Passes over one batch of rollouts.")] = 4
    minibatches: Annotated[Count, _about("Parts that a batch is split into for each pass.")] = 4
    entropy_coefficient: Annotated[NotNegative, _about("Weight of the entropy bonus.")] = 0.01
    value_coefficient: Annotated[NotNegative, _about("Weight of the value loss.")] = 0.5
    max_grad_norm: Annotated[Positive, _about("Largest norm of the gradient.")] = 0.5
    precision: Annotated[
        Literal["fp32", "tf32", "bf16"],
        _about(
            "Arithmetic of the network while it learns; tf32 is that of NVIDIA GPUs, and a learner "
            "on a CPU then uses fp32, so that one file serves both."
        ),
    ] = "fp32"
    answer_timeout_s: Annotated[
        Positive,
        _about(
            "Seconds that a learner on an actor may take to answer, an update included, until it "
            "counts as hung and is replaced."
        ),
    ] = 600.0
    compile: Annotated[
        bool,
        _about("Whether the learner goes through torch.compile, which needs a C++ compiler."),
    ] = False


class TuneSettings(Section):
    """What `trading tune` searches, and how; see docs/tuning.md."""

    method: Annotated[
        Literal["asha", "pbt", "random"],
        _about(
            "What becomes of trials that score low: with asha they end early, with pbt they go on "
            "from a better one's weights with other settings, with random they learn to their end."
        ),
    ] = "asha"
    trials: Annotated[
        Count, _about("Settings that are tried, those that are given among them.")
    ] = 16
    judgements: Annotated[
        Count,
        _about("Times that a trial is scored, after equal parts of learning.pretrain_steps."),
    ] = 4
    reduction: Annotated[
        int,
        Field(ge=2),
        _about(
            "Of so many trials one goes on, with asha, at the first judgement and at each that "
            "comes so many times as late."
        ),
    ] = 2
    concurrent: Annotated[
        Count | None,
        _about("Trials at the same time; unset: as many as the cluster has CPUs for."),
    ] = None
    space: Annotated[
        dict[str, Any],
        _about(
            "By key of learning, model or policy: a list of choices, or a range as in "
            "{low: 1e-5, high: 1e-2, scale: log}."
        ),
    ] = {}


class RaySettings(Section):
    """The Ray runtime."""

    address: Annotated[
        Text | None, _about("Cluster to join; unset: RAY_ADDRESS, or a local runtime.")
    ] = None
    live_market_resource: Annotated[
        Text | None, _about("Custom Ray resource of the node that may hold the live market.")
    ] = None
    dashboard: Annotated[
        bool,
        _about(
            "Whether a local runtime serves Ray's dashboard, which takes 400 MB; its address is "
            "printed."
        ),
    ] = False
    object_store_mb: Annotated[
        int, Field(ge=80), _about("Object store of a local runtime, in MB.")
    ] = 256


class ServingSettings(Section):
    """The HTTP service."""

    host: Annotated[Text, _about("Address that the HTTP service listens on.")] = "127.0.0.1"
    port: Annotated[Port, _about("Port of the HTTP service.")] = 8000


class FeedSettings(Section):
    """What `trading feed` does: one connection to the vendor for many readers."""

    host: Annotated[Text, _about("Address that the feed listens on.")] = "127.0.0.1"
    port: Annotated[Port, _about("Port of the feed; 0: any free one.")] = 8765
    websocket_url: Annotated[
        WebSocketUrl, _about("Address of the vendor's stream, without the asset class.")
    ] = "wss://socket.massive.com"
    rest_url: Annotated[HttpUrl, _about("Address of the vendor's REST service.")] = (
        "https://api.massive.com"
    )
    max_quote_contracts: Annotated[
        Count, _about("Most option contracts whose quotes one connection to the vendor carries.")
    ] = 1000
    max_readers: Annotated[Count, _about("Most connections of readers at the same time.")] = 100
    max_waiting_events: Annotated[
        Count,
        _about(
            "Events that wait for one reader before old quotes give way to newer ones; beside two "
            "for each contract whose quotes it reads."
        ),
    ] = 4096
    rest_keep_s: Annotated[
        NotNegative,
        _about("Seconds for which answers about listings, corporate actions and closes are kept."),
    ] = 60.0
    rest_live_s: Annotated[
        NotNegative, _about("Seconds for which snapshots, quotes and bars by REST are kept.")
    ] = 1.0
    rest_kept_mb: Annotated[CountOrZero, _about("REST answers that are kept, in MB.")] = 64


class Origin:
    """Where settings were read from, so that they can be read again; no part of what they are.

    Parameters
    ----------
    path
        The YAML file, absolute; None: no file.
    overrides
        `section.key=value` texts.
    environment
        Variables that were set, without secrets.
    """

    def __init__(
        self,
        path: Path | None = None,
        overrides: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.overrides = tuple(overrides)
        self.environment = dict(environment or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    __hash__ = None  # type: ignore[assignment]


class Settings(Section):
    """All settings of the system; `trading.config.load_settings` reads them."""

    _origin: Origin = PrivateAttr(default_factory=Origin)

    seed: Annotated[CountOrZero, _about("Seed of every random generator.")] = 7
    symbols: Annotated[
        Symbols, _about("Underlyings that are traded; with commas in text.", env="SYMBOLS")
    ] = ("SPY", "QQQ", "IWM")
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        _about("Least severe level that is logged.", env="LOG_LEVEL"),
    ] = "INFO"
    strategy: Annotated[
        StrategyName | None,
        _about(
            "The one of the strategies that a command is about, and runs; unset: all of them.",
            env="STRATEGY",
        ),
    ] = None
    strategies: Annotated[
        dict[str, dict[str, Any]],
        _about("Accounts that trade side by side, by name: what each changes of this tree."),
    ] = {}
    learner: Annotated[
        Literal["own", "shared"],
        _about(
            "Who learns: own, each account a policy of its own; shared, the strategies that say so "
            "one policy from the experience of all."
        ),
    ] = "own"
    plugins: Annotated[
        FilePaths,
        _about(
            "Python files that register traders, baselines, fee schedules, rewards, features and "
            "option structures of one's own; with commas in text; beside them come installed "
            "packages' (entry points trading.plugins)."
        ),
    ] = ()
    account: AccountSettings = AccountSettings()
    paths: PathSettings = PathSettings()
    credentials: CredentialSettings = CredentialSettings()
    data: DataSettings = DataSettings()
    market: MarketSettings = MarketSettings()
    execution: ExecutionSettings = ExecutionSettings()
    risk: RiskSettings = RiskSettings()
    safety: SafetySettings = SafetySettings()
    notify: NotificationSettings = NotificationSettings()
    env: EnvironmentSettings = EnvironmentSettings()
    model: ModelSettings = ModelSettings()
    policy: PolicySettings = PolicySettings()
    learning: LearningSettings = LearningSettings()
    tune: TuneSettings = TuneSettings()
    ray: RaySettings = RaySettings()
    serving: ServingSettings = ServingSettings()
    feed: FeedSettings = FeedSettings()

    def flat(self) -> dict[str, Any]:
        """Every value by its dotted key."""
        return _flat(self.model_dump(), "")

    @property
    def origin(self) -> Origin:
        """Where they were read from."""
        return self._origin

    @property
    def discount(self) -> float:
        """Of the next decision's value, 0..1: exp(-bar / horizon), or `learning.gamma`."""
        if self.learning.gamma is not None:
            return self.learning.gamma
        return math.exp(-self.data.bar_seconds / horizon_seconds(self.learning.horizon))

    @property
    def learns(self) -> bool:
        """Whether anything is learned while trading: `learning.online`, and by a policy."""
        return self.learning.online and self.policy.trader is None

    @property
    def lockstep(self) -> bool:
        """`learning.lockstep`, or where that is unset, whether this is a replay at speed 0."""
        if self.learning.lockstep is not None:
            return self.learning.lockstep
        return self.data.source == "replay" and self.data.replay.speed == 0


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
