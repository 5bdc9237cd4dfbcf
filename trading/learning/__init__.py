"""The policy, how it learns, and what lets it trade."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.learning.build import build_algorithm as build_algorithm
    from trading.learning.build import training_environment as training_environment
    from trading.learning.checkpoints import CheckpointStore as CheckpointStore
    from trading.learning.checkpoints import load_module_weights as load_module_weights
    from trading.learning.clstm import CLSTM as CLSTM
    from trading.learning.clstm import CLSTMConfig as CLSTMConfig
    from trading.learning.module import CLSTMModule as CLSTMModule
    from trading.learning.online import OnlineLearner as OnlineLearner
    from trading.learning.online import OnlineRules as OnlineRules
    from trading.learning.policy import Decision as Decision
    from trading.learning.policy import Policy as Policy
    from trading.learning.ppo import CLSTMPPO as CLSTMPPO
    from trading.learning.ppo_config import CLSTMPPOConfig as CLSTMPPOConfig
    from trading.learning.runner import BatchedEnvRunner as BatchedEnvRunner

_PLACES = {
    "build_algorithm": "build",
    "training_environment": "build",
    "CheckpointStore": "checkpoints",
    "load_module_weights": "checkpoints",
    "CLSTM": "clstm",
    "CLSTMConfig": "clstm",
    "CLSTMModule": "module",
    "OnlineLearner": "online",
    "OnlineRules": "online",
    "Decision": "policy",
    "Policy": "policy",
    "CLSTMPPO": "ppo",
    "CLSTMPPOConfig": "ppo_config",
    "BatchedEnvRunner": "runner",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
