"""Training on simulated markets alone, into a checkpoint that `trading up` begins with."""

from contextlib import ExitStack
from pathlib import Path
from threading import Event

from trading.application import absolute_paths
from trading.config import Settings
from trading.display import Display
from trading.up import ray_runtime, stop_signals


def train(settings: Settings, display: Display) -> Path:
    """Resume or begin training, do `learning.pretrain_steps` more decisions, write a checkpoint.

    Ctrl-C and SIGTERM end it early; the checkpoint is written all the same. A lost learner is
    revived from the last checkpoint.
    """
    settings = absolute_paths(settings)
    learning = settings.learning
    stop = Event()
    with ExitStack() as stack:
        stack.enter_context(ray_runtime(settings, display))
        stack.enter_context(stop_signals(stop))
        from trading.algorithm import open_algorithm
        from trading.learning.build import pretrain
        from trading.learning.champions import FOLDER as CHAMPIONS

        algorithm, store, origin, _ = open_algorithm(settings, display, stack)
        display.note(f"policy: {origin or 'new weights'}")
        steps, save_frequency = learning.pretrain_steps, learning.pretrain_save_frequency
        display.note(pretrain(algorithm, store, steps, save_frequency, display.phase, stop.is_set))
        path = store.save(algorithm.save_to_path, {"step": algorithm.weights_version})
    display.note(f"checkpoint: {path}")
    if (settings.paths.checkpoints / CHAMPIONS).is_dir():
        display.note(f"let it trade with: trading checkpoints promote {path.name}")
    return path
