"""The `market` section becomes the world that is traded live and what training draws from."""

from pathlib import Path

import numpy as np
import pytest

from trading.config import MarketSettings, load_settings
from trading.config.market import drawn_settings
from trading.errors import ConfigError
from trading.learning.noted_settings import differences, noted_settings
from trading.live.simulated_world import simulated_spec, simulated_world
from trading.market.listing import default_spec
from trading.market.model import DEFAULT_MODEL, MarketModel
from trading.market.quotes import TickClass
from trading.market.randomisation import (
    DEFAULT_DISTRIBUTION,
    sample_markets,
    sample_models,
)
from trading.market.simulated_underlying import INDEPENDENT, Comovement

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "markets").glob("*.yaml"))
_RELATIVE = {"stressed_vol", "stressed_skew", "event_move"}


def market_of(*overrides: str) -> MarketSettings:
    return load_settings(overrides=overrides, environ={}).market


def mistakes(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        market_of(*overrides)
    return caught.value.lines


def test_the_default_settings_are_the_world_that_always_was() -> None:
    world = simulated_world(MarketSettings())
    assert world == (DEFAULT_MODEL, INDEPENDENT, DEFAULT_DISTRIBUTION)
    assert simulated_spec(MarketSettings(), "AAPL").tick_class == default_spec("AAPL").tick_class
    assert MarketSettings().is_default


def test_every_figure_reaches_the_world() -> None:
    """A setting that changes nothing would be a promise that nobody keeps."""
    usual = simulated_world(MarketSettings())
    for key in drawn_settings(MarketSettings()):
        changed = False
        for value in ("0.021", "0.5", "1.7", "30.0"):
            try:
                world = simulated_world(market_of(f"market.{key}={value}"))
            except ConfigError:
                continue
            assert world.distribution != usual.distribution, key
            changed |= world.model != usual.model
        assert changed or key == "price.spot", key


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("market.price.drift_pct=-20", "drift", -0.2),
        ("market.price.momentum=0.1", "momentum", 0.1),
        ("market.volatility.calm=0.3", "calm_vol", 0.3),
        ("market.volatility.stress_multiple=3", "stressed_vol", 0.45),
        ("market.premium.night_pct=40", "night_premium", 0.4),
        ("market.premium.tenor=-0.05", "term_slope", -0.01),
        ("market.premium.skew=-0.05", "calm_skew", -0.25),
        ("market.skew.calm=-0.1", "stressed_skew", -0.16),
        ("market.quotes.spread=2.5", "spread_scale", 2.5),
        ("market.quotes.size=100", "size_mean", 100.0),
        ("market.quotes.size=[50,100]", "size_mean", 75.0),
    ],
)
def test_a_figure_is_the_live_market_and_every_market_of_training(
    override: str, field: str, value: float
) -> None:
    world = simulated_world(market_of(override))
    assert getattr(world.model, field) == pytest.approx(value)
    if "[" in override or "premium.tenor" in override or "premium.skew" in override:
        return
    models = sample_models(np.random.default_rng(1), 50, world.distribution.ranges)
    drawn = models[:, MarketModel._fields.index(field)]
    if field == "stressed_vol":
        drawn = 0.15 * drawn / models[:, MarketModel._fields.index("calm_vol")]
    if field != "stressed_skew":
        assert drawn == pytest.approx(value)


def test_a_premium_by_tenor_and_skew_moves_what_training_draws() -> None:
    usual = simulated_world(MarketSettings()).distribution.ranges
    moved = simulated_world(
        market_of("market.premium.tenor=-0.02", "market.premium.skew=-0.03")
    ).distribution.ranges
    assert moved.term_slope.low == pytest.approx(usual.term_slope.low - 0.02)
    assert moved.calm_skew.high == pytest.approx(usual.calm_skew.high - 0.03)


def test_two_numbers_are_drawn_between_in_training() -> None:
    distribution = simulated_world(market_of("market.volatility.calm=[0.2,0.4]")).distribution
    calm = sample_models(np.random.default_rng(1), 500, distribution.ranges)[:, 2]
    assert 0.2 <= calm.min() < 0.22
    assert 0.38 < calm.max() <= 0.4
    assert market_of("market.volatility.calm='0.2,0.4'").volatility.calm == (0.2, 0.4)


def test_what_is_unset_can_be_as_on_the_live_exchange() -> None:
    market = market_of("market.unset=live", "market.premium.calm_pct=10")
    world = simulated_world(market)
    models = sample_models(np.random.default_rng(1), 3, world.distribution.ranges)
    for field, column in zip(MarketModel._fields, models.T, strict=True):
        assert column == pytest.approx(getattr(world.model, field)), field


def test_episodes_begin_as_the_settings_say() -> None:
    market = market_of(
        "market.price.spot=[50,60]",
        "market.quotes.tick=standard",
        "market.regimes.begins_stressed=1.0",
        "market.news.share=0.0",
    )
    distribution = simulated_world(market).distribution
    drawn = sample_markets(np.random.default_rng(1), 50, 10**18, *distribution)
    assert 50 <= drawn.spot.min() <= drawn.spot.max() <= 60
    assert set(drawn.tick_class.tolist()) == {int(TickClass.STANDARD)}
    assert set(drawn.regime.tolist()) == {1}
    assert np.all(drawn.models[:, MarketModel._fields.index("event_ns")] == 0.0)


def test_underlyings_can_be_given_one_by_one() -> None:
    market = market_of(
        "market.volatility.calm=0.3",
        "market.underlyings={ABC: {spot: 50, strikes: 9, tick: standard}, XYZ: {volatility: 0.5}}",
        "market.ties.correlation=0.6",
        "market.news.every_days=91",
    )
    abc, xyz = simulated_spec(market, "ABC"), simulated_spec(market, "XYZ")
    assert (abc.spot, abc.annual_vol, abc.n_strikes) == (50.0, 0.3, 9)
    assert abc.tick_class is TickClass.STANDARD
    assert (xyz.annual_vol, xyz.spot) == (0.5, default_spec("XYZ").spot)
    assert simulated_world(market).comovement == Comovement(0.6, False, 91)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "market.volatility.calm=90",
            "market.volatility.calm = 90 (--set): must be a number from 0.04 to 3, or two",
        ),
        ("market.volatility.calm=[0.4,0.2]", "the lower one first"),
        (
            "market.volatility.calm=high",
            "market.volatility.calm = 'high' (--set): must be a number",
        ),
        ("market.volatility.calm=true", "market.volatility.calm = True (--set): must be a number"),
        ("market.volatility.clam=0.2", "did you mean market.volatility.calm?"),
        ("market.price.momentum=0.3", "must be below 1 / market.price.trend_sessions, 0.2"),
        ("market.ties.correlation=1.5", "market.ties.correlation = 1.5 (--set): must be 1 or less"),
        ("market.underlyings={ABC: 3}", "must give ABC a section with any of the keys spot"),
        ("market.underlyings={ABC: {spot: 0}}", "market.underlyings.ABC.spot = 0 (--set): must be"),
        ("market.file=nowhere.yaml", "nowhere.yaml: no such file"),
    ],
)
def test_a_mistake_names_key_value_and_way_out(override: str, told: str) -> None:
    lines = mistakes(override)
    assert any(told in line for line in lines), lines


def test_a_file_fills_in_what_is_not_given_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("market: {price: {drift_pct: 9}, premium: {calm_pct: 1}}")
    market = market_of(f"market.file={file}", "market.premium.calm_pct=2")
    assert (market.price.drift_pct, market.premium.calm_pct) == (9.0, 2.0)
    file.write_text("market: {price: {drift: 9}}")
    (line,) = mistakes(f"market.file={file}")
    assert "drift_pct" in line
    assert str(file) in line
    file.write_text("seed: 3\nmarket: {price: {drift_pct: 9}}")
    (line,) = mistakes(f"market.file={file}")
    assert line.startswith(f"seed = 3 ({file}): market.file names a file of nothing but a market")
    file.write_text("")
    (line,) = mistakes(f"market.file={file}")
    assert "holds no market section" in line


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_markets_can_be_named_either_way(path: Path) -> None:
    by_file = market_of(f"market.file={path}")
    as_config = load_settings(path, environ={}).market
    assert by_file.model_copy(update={"file": None}) == as_config
    assert not as_config.is_default
    simulated_world(as_config)


def test_a_checkpoint_notes_the_market_it_was_learnt_in() -> None:
    then = noted_settings(load_settings(environ={}))
    now = noted_settings(load_settings(overrides=["market.price.momentum=0.1"], environ={}))
    assert differences(then, now) == [
        "market.price.momentum is 0.1; the checkpoint was learnt with unset"
    ]
    assert "market.file" not in then


def test_a_checkpoint_of_before_was_learnt_at_the_touch_in_the_default_market() -> None:
    old = {"seed": 7, "execution.commission": 0.65}
    overrides = ["execution.style=share_of_spread", "market.premium.night_pct=50"]
    now = noted_settings(load_settings(overrides=overrides, environ={}))
    assert differences(old, now) == [
        "execution.style is share_of_spread; the checkpoint was learnt with touch",
        "market.premium.night_pct is 50.0; the checkpoint was learnt with unset",
    ]
    assert differences(old, noted_settings(load_settings(environ={}))) == []


def test_a_checkpoint_notes_a_horizon_as_its_discount() -> None:
    then = noted_settings(load_settings(overrides=["learning.gamma=0.99"], environ={}))
    now = noted_settings(load_settings(overrides=["learning.horizon=1 session"], environ={}))
    same = noted_settings(load_settings(overrides=["learning.horizon=390 minutes"], environ={}))
    assert differences(then, now) == [
        "learning.gamma is 0.997439182; the checkpoint was learnt with 0.99"
    ]
    assert differences(now, same) == []
    assert differences(then, noted_settings(load_settings(environ={}))) == [], "but for rounding"
