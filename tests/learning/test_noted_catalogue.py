"""A model of other actions or features is refused, and the message says which they are."""

from pathlib import Path
from typing import Any

import pytest

from trading.config import Settings, load_settings
from trading.envs.features import OTHERS_COUNT
from trading.errors import CheckpointError, LearningError
from trading.execution.events import PromotedBy
from trading.learning.champion.store import AccountChampion, ChampionStore, Promotion
from trading.learning.checkpoints import CheckpointStore, verify, write_module_weights
from trading.learning.noted_catalogue import CATALOGUE, check_catalogue, noted_catalogue
from trading.learning.policy import Policy
from trading.live import assembly


def saved(folder: Path, noted: dict[str, Any], settings: Settings | None = None) -> Path:
    weights = Policy(assembly.model_config(settings or Settings()), 3).weights()
    store = CheckpointStore(folder, 5, noted={CATALOGUE: noted} if noted else None)
    return store.save(lambda directory: write_module_weights(directory, weights), {"step": 30})


def test_one_of_the_same_catalogue_acts_and_so_does_one_that_does_not_tell(tmp_path: Path) -> None:
    for name, noted in (("new", noted_catalogue()), ("old", {})):
        path = saved(tmp_path / name, noted)
        check_catalogue(path)
        assert assembly.policy_of(Settings(), path).config.action_count


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda each: each["actions"].pop("close"), "actions only here: close"),
        (lambda each: each["actions"].update(mine="9:0"), "actions only there: mine"),
        (lambda each: each["features"].update(rsi="0:0"), "features another here: rsi"),
    ],
)
def test_one_of_another_catalogue_is_refused_though_its_shape_fits(
    tmp_path: Path, change: Any, told: str
) -> None:
    noted = noted_catalogue()
    change(noted)
    path = saved(tmp_path / "other", noted)
    with pytest.raises(CheckpointError, match=rf"other actions or features \({told}\): use"):
        assembly.policy_of(Settings(), path)
    champions = ChampionStore(tmp_path / "checkpoints", 5)
    with pytest.raises(CheckpointError, match=told):
        config = assembly.model_config(Settings())
        champions.write_checkpoint(path, config, AccountChampion(), own=True)


def test_a_model_of_accounts_of_several_underlyings_is_one_of_its_own(tmp_path: Path) -> None:
    """It sees what the others hold, and one that does not cannot take its place."""
    single = Settings()
    several = load_settings(None, ["env.underlyings_per_account=3"], {})
    folders = {"single": single, "several": several}
    models = {
        name: saved(tmp_path / name, assembly.champion_notes(settings).get(CATALOGUE, {}), settings)
        for name, settings in folders.items()
    }
    assert assembly.policy_of(several, models["several"]).config.observation_size == (
        assembly.policy_of(single, models["single"]).config.observation_size + OTHERS_COUNT
    )
    with pytest.raises(CheckpointError, match=r"only there: others_delta.*underlyings_per_account"):
        assembly.policy_of(single, models["several"])
    with pytest.raises(LearningError, match=r"reads 42 features.*underlyings_per_account"):
        assembly.policy_of(several, models["single"])


def test_a_champion_names_its_catalogue(tmp_path: Path) -> None:
    weights = Policy(assembly.model_config(Settings()), 3).weights()
    champions = ChampionStore(tmp_path, 5)
    champions.write(
        lambda directory: write_module_weights(directory, weights),
        Promotion(10, PromotedBy.START, "of the test"),
        AccountChampion(),
    )
    assert verify(champions.path(1))[CATALOGUE] == noted_catalogue()
