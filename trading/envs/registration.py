"""Gymnasium's name for the environment: `gymnasium.make("trading/Options-v0")`, or `make_vec`.

An installed package tells Gymnasium by its entry point `gymnasium.envs`, so that nothing of this
package needs to be imported first.
"""

import gymnasium

OPTIONS = "trading/Options-v0"


def register_environments() -> None:
    """Tell Gymnasium what there is; once or more often."""
    if OPTIONS not in gymnasium.registry:
        gymnasium.register(
            OPTIONS,
            entry_point="trading.envs.single_env:SimulatedOptionsEnv",
            vector_entry_point="trading.envs.single_env:simulated_options",
        )
