"""The settings at a start, held against what the journal says."""

from pathlib import Path

import pytest

from tests.live.market import settings_for
from trading.config import Settings
from trading.errors import ConfigError
from trading.execution.events import AccountOpened, CashMoved, TermsAdopted
from trading.execution.portfolio import Account
from trading.live.changed_settings import changed_settings, trading_settings


def account_of(settings: Settings, cash: float = 100_000.0, moved: float = 0.0) -> Account:
    account = Account()
    account.apply(AccountOpened(1, "paper", cash))
    account.apply(TermsAdopted(1, trading_settings(settings)))
    if moved:
        account.apply(CashMoved(2, 1, moved, cash))
    return account


def test_equal_settings_and_a_new_account_have_nothing_to_tell(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    assert changed_settings(settings, account_of(settings)) == []
    assert changed_settings(settings_for(tmp_path, "account.initial_capital=5.0"), Account()) == []


@pytest.mark.parametrize(
    ("capital", "moved", "way"),
    [
        (150_000.0, 0.0, "`trading account deposit 50000.00`"),
        (40_000.0, 0.0, "`trading account withdraw 60000.00`"),
        (150_000.0, 20_000.0, "`trading account deposit 30000.00`"),
    ],
)
def test_another_initial_capital_is_refused_with_the_way_out(
    tmp_path: Path, capital: float, moved: float, way: str
) -> None:
    account = account_of(settings_for(tmp_path), moved=moved)
    with pytest.raises(ConfigError) as caught:
        changed_settings(settings_for(tmp_path, f"account.initial_capital={capital}"), account)
    (line,) = caught.value.lines
    assert line.startswith(f"account.initial_capital: {capital:.2f} is not the 100000.00 USD")
    assert way in line


def test_after_a_deposit_the_initial_capital_stays_what_it_was(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    assert changed_settings(settings, account_of(settings, moved=50_000.0)) == []


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.bar_seconds=30", "data.bar_seconds was 60 when the account last traded, and is 30"),
        ("model.actor_hidden=32", "model.actor_hidden was 64"),
        ("risk.max_daily_loss_pct=4", "risk.max_daily_loss_pct was 5.0"),
        ("execution.commission=1", "execution.commission was 0.65"),
        ("env.underlyings_per_account=2", "env.underlyings_per_account was 1"),
    ],
)
def test_what_has_changed_is_named(tmp_path: Path, override: str, told: str) -> None:
    account = account_of(settings_for(tmp_path))
    (line,) = changed_settings(settings_for(tmp_path, override), account)
    assert line.startswith(told)
    assert ("do not fit" in line or "train again" in line) == override.startswith(
        ("data.", "model.", "env.")
    )


def test_from_two_underlyings_to_three_models_go_on(tmp_path: Path) -> None:
    account = account_of(settings_for(tmp_path, "env.underlyings_per_account=2"))
    (line,) = changed_settings(settings_for(tmp_path, "env.underlyings_per_account=3"), account)
    assert line.startswith("env.underlyings_per_account was 2") and "do not fit" not in line


def test_another_catalogue_or_features_are_named(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    account = account_of(settings)
    account.apply(
        TermsAdopted(2, trading_settings(settings) | {"actions": "3 (a)", "features": "4 (b)"})
    )
    lines = changed_settings(settings, account)
    assert [line.partition(" was ")[0] for line in lines] == ["actions", "features"]
    assert all("do not fit" in line for line in lines)


def test_a_journal_of_before_there_were_styles_traded_at_the_touch(tmp_path: Path) -> None:
    terms = trading_settings(settings_for(tmp_path))
    del terms["execution.style"]
    account = Account()
    account.apply(AccountOpened(1, "paper", 100_000.0))
    account.apply(TermsAdopted(1, terms))
    assert changed_settings(settings_for(tmp_path), account) == []
    (line,) = changed_settings(settings_for(tmp_path, "execution.style=share_of_spread"), account)
    assert line == "execution.style was touch when the account last traded, and is share_of_spread"


def test_what_is_not_set_is_told_so(tmp_path: Path) -> None:
    account = account_of(settings_for(tmp_path))
    account.apply(
        TermsAdopted(
            2, account.terms | {"env.reward": "mine (1f)", "env.features": "one (2a), two (3b)"}
        )
    )
    assert changed_settings(settings_for(tmp_path), account) == [
        "env.reward was mine (1f) when the account last traded, and is unset",
        "env.features was one (2a), two (3b) when the account last traded, and is unset: "
        "checkpoints and models made before do not fit",
    ]
