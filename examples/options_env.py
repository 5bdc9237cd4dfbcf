"""The market as an ordinary Gymnasium environment: a random trader's day.

python examples/options_env.py [SEED]
"""

import sys

import gymnasium
import numpy as np

import trading  # noqa: F401 - not needed where the package is installed

env = gymnasium.make("trading/Options-v0")
seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
choice = np.random.default_rng(seed)
observation, _ = env.reset(seed=seed)
total, done = 0.0, False
while not done:
    action = choice.choice(np.flatnonzero(observation["action_mask"]))
    observation, reward, terminated, truncated, _ = env.step(action)
    total, done = total + float(reward), terminated or truncated
print(f"a random trader's day: {total:+.2f} % of its capital")
