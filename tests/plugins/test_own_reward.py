"""A reward of a user's own: paid as its function says, by whoever pays it, or refused."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import trading as td
from trading.cli.main import app
from trading.config import Settings, load_settings
from trading.envs.rewards import largest_reward
from trading.envs.vector_env import OptionsVectorEnv
from trading.errors import PluginError
from trading.learning.noted_settings import differences, noted_settings
from trading.live.assembly import check_plugins, own_reward
from trading.live.changed_settings import trading_settings

DELTA = td.feature_index("position_delta")
LEANS = """
import numpy as np
import trading as td
from numba import njit

DELTA = td.feature_index("position_delta")
WEIGHT = 0.5

@njit
def leaning(bar):
    return WEIGHT * abs(bar.observation[DELTA])

@td.register_reward("upright")
def upright(bar):
    return bar.reward - leaning(bar)
"""


def settings_with(folder: Path, content: str, *overrides: str, name: str = "upright") -> Settings:
    (folder / "mine.py").write_text(content)
    chosen = [f"plugins={folder / 'mine.py'}", f"env.reward={name}", *overrides]
    return load_settings(None, chosen, {})


def told(folder: Path, content: str) -> str:
    return trading_settings(settings_with(folder, content))["env.reward"]


def stepped(env: OptionsVectorEnv, steps: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Observations before the action, rewards and equity of random actions, equal for equals."""
    rng, seen = np.random.default_rng(5), []
    observation, _ = env.reset()
    for _ in range(steps):
        mask = observation["action_mask"]
        actions = np.array([rng.choice(np.flatnonzero(row)) for row in mask])
        observation, rewards, _, ended, info = env.step(actions)
        shown = observation["observations"].copy()
        if ended.any():
            shown[ended] = info["final_obs"]["observations"][ended]
        seen.append((shown, rewards, env.equity.copy()))
    return seen


def test_it_takes_the_place_of_the_usual_one_and_changes_no_market(tmp_path: Path) -> None:
    single = "env.sessions_per_episode=1"
    settings = settings_with(tmp_path, LEANS, single)
    own = stepped(td.make_vector_env(6, settings, seed=2), 400)
    usual = stepped(td.make_vector_env(6, load_settings(None, [single], {}), seed=2), 400)
    for (seen, rewards, _), (same, before, _) in zip(own, usual, strict=True):
        assert seen.tobytes() == same.tobytes()
        leaning = 0.5 * np.abs(seen[:, DELTA].astype(np.float64))
        np.testing.assert_allclose(rewards, before - leaning, atol=1e-6)
    leans = [np.abs(seen[:, DELTA]).max() for seen, _, _ in own]
    assert max(leans) > 0.1


def test_a_night_is_paid_at_the_close_and_at_the_next_open(tmp_path: Path) -> None:
    constant = LEANS.replace("return bar.reward - leaning(bar)", "return 0.25")
    settings = settings_with(tmp_path, constant, "env.sessions_per_episode=3")
    paid = np.stack([rewards for _, rewards, _ in stepped(td.make_vector_env(3, settings), 800)])
    assert set(np.unique(paid).tolist()) == {0.25, 0.5}
    assert 0 < (paid == 0.5).sum() < 20


def test_no_reward_is_larger_than_the_usual_ones_can_be(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, LEANS.replace("bar.reward -", "1e9 -"))
    env, bound = td.make_env(settings), largest_reward(settings.env.reward_scale, 0.0)
    env.reset(seed=1)
    assert env.step(td.HOLD)[1] == bound


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("return open('x')", r"cannot be compiled \(line 15\): .*write it with numbers"),
        ("return bar.profit", r"cannot be compiled \(line 15\): .*profit"),
        ("bar.observation[0] = 1.0; return 0.0", r"cannot be compiled \(line 15\): .*setitem"),
        ("return 1", "returns int64: it must return one float"),
        ("return bar.observation", "returns .*array.*: it must return one float"),
        ("return np.random.rand()", "gave .* and then .* for the same bar"),
        ("return bar.reward / 0.0", "gave nan where all is known"),
        ("return bar.observation[999]", "failed: IndexError"),
        ("raise ValueError('no')", "failed.*ValueError: no"),
    ],
)
def test_what_is_no_reward_is_refused_before_anything_starts(
    tmp_path: Path, code: str, message: str
) -> None:
    content = LEANS.replace("return bar.reward - leaning(bar)", code)
    settings = settings_with(tmp_path, content)
    with pytest.raises(PluginError, match=rf"reward upright of .*mine\.py {message}"):
        check_plugins(settings)


def test_training_ends_before_ray_starts(tmp_path: Path) -> None:
    settings_with(tmp_path, LEANS.replace("return bar.reward - leaning(bar)", "return 1"))
    chosen = [f"plugins={tmp_path / 'mine.py'}", f"paths.state_dir={tmp_path / 'var'}"]
    for name, message in (("upright", "must return one float"), ("none", "no reward none")):
        overrides = [*chosen, f"env.reward={name}"]
        options = [word for each in overrides for word in ("--set", each)]
        result = CliRunner().invoke(app, ["train", "--steps", "1000", *options])
        assert result.exit_code == 1 and message in " ".join(result.output.split())
        assert "Ray" not in result.output and "Traceback" not in result.output
    assert not (tmp_path / "var").exists()


def test_a_number_that_is_none_later_on_names_the_bar(tmp_path: Path) -> None:
    content = LEANS.replace("bar.reward -", "np.nan if bar.capital < 1000.0 else -")
    env = td.make_env(settings_with(tmp_path, content, "account.initial_capital=900"))
    with pytest.raises(PluginError, match=r"no finite number for a change of 0.0, .*env\.reward"):
        env.reset(seed=1)


def test_its_digest_is_of_its_code_and_of_nothing_else_in_the_file(tmp_path: Path) -> None:
    before = told(tmp_path, LEANS)
    beside = LEANS + '\n@td.register_fees("none")\ndef none(configured):\n    return configured\n'
    assert told(tmp_path, beside) == before
    for change in (("0.5", "0.6"), ("abs", "np.abs"), ("- leaning", "+ leaning")):
        assert told(tmp_path, LEANS.replace(*change)) != before
    assert told(tmp_path, LEANS) == before


def test_what_has_changed_is_told_of_a_checkpoint(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, LEANS)
    then = noted_settings(Settings())
    (line,) = differences(then, noted_settings(settings))
    assert line.startswith("env.reward is upright (") and line.endswith("learnt with unset")
    now = noted_settings(settings)
    settings = settings_with(tmp_path, LEANS.replace("0.5", "0.6"))
    (line,) = differences(now, noted_settings(settings))
    assert line.count("upright (") == 2


def test_another_process_finds_the_same_one_or_says_that_it_is_another(tmp_path: Path) -> None:
    reward = own_reward(settings_with(tmp_path, LEANS))
    (tmp_path / "reward.pickle").write_bytes(pickle.dumps(reward))
    script = (
        "import pickle, sys, numpy as np\n"
        "reward = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "seen = np.full((1, reward.width), 2.0, np.float32)\n"
        "paid, zero = np.array([0.0]), np.zeros(1)\n"
        "reward.pay(zero, zero, 1.0, seen, np.arange(1), 9.0, paid)\n"
        "print(paid.tolist())\n"
    )

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, str(tmp_path / "reward.pickle")]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    assert run().stdout == "[-1.0]\n"
    settings_with(tmp_path, LEANS.replace("0.5", "0.6"))
    assert "is another than the one that this run began with" in run().stderr


def test_the_example_pays_less_for_a_position_that_leans() -> None:
    file = Path(__file__).parents[2] / "examples" / "plugins" / "small_delta.py"
    settings = load_settings(None, [f"plugins={file}", "env.reward=small_delta"], {})
    check_plugins(settings)
    env = td.make_vector_env(4, settings, seed=1)
    for seen, rewards, _ in stepped(env, 30):
        assert np.isfinite(rewards).all() and seen.shape == (4, len(td.FEATURES))
