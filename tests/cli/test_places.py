"""`trading up --place`: which strategy a replica with a volume of its own trades."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from trading.app import up as module
from trading.cli.main import app
from trading.config import Settings
from trading.live.assembly import journal_path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "s.yaml"
    file.write_text(
        f"paths: {{state_dir: {tmp_path / 'state'}}}\nstrategies: {{zebra: , ape: {{seed: 3}}}}\n"
    )
    return file


@pytest.fixture
def traded(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of what was started."""
    found: list[Settings] = []
    monkeypatch.setattr(module, "up", lambda settings, *_: found.append(settings))
    return found


def up(config: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["up", "--config", str(config), *words])


def test_places_follow_the_order_of_the_settings(config: Path, traded: list[Settings]) -> None:
    for place in ("0", "1"):
        assert up(config, f"--place={place}").exit_code == 0
    assert [each.strategy for each in traded] == ["zebra", "ape"]


def test_a_place_that_is_not_there_is_refused(config: Path, traded: list[Settings]) -> None:
    result = up(config, "--place", "2")
    assert (result.exit_code, traded) == (2, [])
    assert "the settings have 2 strategies, at the places 0 to 1" in result.stderr
    assert up(config, "--place", "0", "--claim").exit_code == 2


def test_one_account_has_the_first_place_alone(tmp_path: Path, traded: list[Settings]) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text(f"paths: {{state_dir: {tmp_path}}}\n")
    assert up(plain, "--place", "0").exit_code == 0
    assert [each.strategy for each in traded] == [None]
    assert "the settings have 0 strategies" in up(plain, "--place", "1").stderr


def test_another_order_does_not_begin_a_new_account_beside_the_one_that_is_there(
    config: Path, traded: list[Settings]
) -> None:
    assert up(config, "--place", "0").exit_code == 0
    journal = journal_path(traded[0])
    journal.parent.mkdir(parents=True)
    journal.touch()
    assert up(config, "--place", "0").exit_code == 0
    config.write_text(config.read_text().replace("{zebra: , ape: {seed: 3}}", "{ape: , zebra: }"))
    result = up(config, "--place", "0")
    assert (result.exit_code, len(traded)) == (2, 2)
    assert str(journal) in result.stderr and "keep their places" in result.stderr
