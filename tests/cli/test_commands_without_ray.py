"""What a command imports before it starts Ray, whose settings are read when Ray is imported."""

import subprocess
import sys

MODULES = (
    "trading.app.up",
    "trading.cli.stop",
    "trading.app.train",
    "trading.cli.evaluation",
    "trading.evaluation.evaluate",
    "trading.evaluation.simulated_history",
    "trading.evaluation.summary",
    "trading.live.assembly",
    "trading.cli.checkpoints",
)


def test_nothing_imports_ray_before_its_runtime_is_set_up() -> None:
    code = f"import sys, {', '.join(MODULES)}; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_live_market_starts_without_what_only_learning_needs() -> None:
    """It starts again after each crash, and these take longer to import than all the rest."""
    code = "import sys, trading.live.actor; print({'ray.rllib', 'scipy.stats'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_who_answers_by_http_loads_neither_network_nor_kernels() -> None:
    """There are two of them, and each would take as much again of the start and of memory."""
    heavy = {"torch", "numba", "scipy", "ray.rllib"}
    modules = "trading.serving.app, trading.serving.strategies"
    code = f"import sys, {modules}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
