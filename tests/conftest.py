"""What every test stands on."""

import logging
import os
from collections.abc import Iterator

import pytest

import trading  # noqa: F401 - before numba is imported: it says where kernels are cached
from tests.progress import Progress
from tests.waits import STOP_S
from trading.app import local_ray as ray_of_this_process
from trading.app import ray_threads
from trading.logs import log_through_standard_library

# Before NumPy and PyTorch are imported, here and in what tests start: threads that spin while they
# wait for each other cost several times the work where other processes want the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before Ray is imported.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
ray_of_this_process.prepare(local=True)


def pytest_configure(config: pytest.Config) -> None:
    """Tell how far it is, in the process that others test for."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config), "progress")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the tests, slow files come first: none is left for one at the end."""
    if not hasattr(config, "workerinput"):
        return
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Undo what a test's command or application did to the process's logging."""
    root, package = logging.getLogger(), logging.getLogger("trading")
    handlers, levels = root.handlers[:], (root.level, package.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    package.setLevel(levels[1])
    log_through_standard_library()


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A small Ray for all tests of this process that need one; a node carries `learner`."""
    import ray

    ray_of_this_process.start(
        num_cpus=2,
        resources={"learner": 1},
        object_store_memory=100_000_000,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
    )
    yield
    # One that asks Ray after its end would end this process.
    ray_threads.await_end(STOP_S)
    ray.shutdown()
