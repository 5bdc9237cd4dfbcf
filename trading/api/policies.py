"""A learned policy, loaded to act."""

from pathlib import Path

from trading.config import Settings, load_settings
from trading.learning.policy import Policy
from trading.live.assembly import policy_of


def load_policy(
    checkpoint: str | Path, settings: Settings | None = None, *, acting: str | float | None = None
) -> Policy:
    """Load a policy from a checkpoint.

    Parameters
    ----------
    checkpoint
        Folder of a checkpoint (`trading checkpoints list`), or a file of weights.
    settings
        Shape of the network, and how it acts; None: `load_settings()`.
    acting
        "sampled", "greedy", or a temperature; None: as the settings' `policy.act` says.

    Returns
    -------
    A policy. `policy.act(observations, action_mask, state, first)` chooses for B rows at once:
    float32 [B, F], bool [B, N], the state of `policy.initial_state(B)` or of the call before, and
    bool [B], where an episode begins. `td.backtest` takes it as it is.

    Raises
    ------
    CheckpointError
        There is no checkpoint, or it cannot be read.
    LearningError
        It is of a network of another shape.

    Examples
    --------
    >>> import numpy as np
    >>> import trading as td
    >>> policy = td.load_policy("var/model")
    >>> env = td.make_vector_env(4)
    >>> observation, _ = env.reset()
    >>> decision, state = policy.act(
    ...     observation["observations"],
    ...     observation["action_mask"],
    ...     policy.initial_state(4),
    ...     np.ones(4, bool),
    ... )
    >>> decision.probabilities.shape == (4, len(td.ACTIONS))
    True
    """
    settings = load_settings() if settings is None else settings
    return policy_of(settings, Path(checkpoint), acting)
