"""Training on simulated markets alone, into a checkpoint that `trading up` begins with."""

from contextlib import ExitStack
from pathlib import Path
from threading import Event

from trading.app.display import Display
from trading.app.up import LEARNING_TAKES, ray_runtime, stop_signals
from trading.config import Settings, absolute_paths
from trading.learning.checkpoints import CheckpointStore
from trading.live import assembly

WEIGHTS_FILE = "weights.pt"
"""Beside the checkpoints: the newest one's weights, for `promote` and MODEL_PATH."""


def train(settings: Settings, display: Display) -> Path:
    """Learn `learning.pretrain_steps` decisions, more than before or the rest; the checkpoint.

    A training that did not come to its end is gone on with, and what it learned counts; one that
    did is followed by another. Ctrl-C and SIGTERM end it early, with a checkpoint. A lost learner
    is revived from the last checkpoint.

    Raises
    ------
    CheckpointError
        Another training has the folder, or what it holds does not fit the settings.
    PluginError
        A plug-in is missing or wrong.
    """
    settings = absolute_paths(settings)
    assembly.check_plugins(settings)
    learning = settings.learning
    steps = learning.pretrain_steps
    stop = Event()
    with ExitStack() as stack:
        store = CheckpointStore(settings.paths.checkpoints, learning.keep_checkpoints)
        stack.enter_context(store.owned())
        stack.enter_context(stop_signals(stop))
        stack.enter_context(ray_runtime(settings, display, ahead=LEARNING_TAKES))
        from trading.app.algorithm import open_algorithm
        from trading.learning.build import pretrain
        from trading.learning.champion.store import FOLDER as CHAMPIONS
        from trading.learning.checkpoints import load_module_weights, write_weights_file

        algorithm, _, origin, pretrained = open_algorithm(settings, display, stack, stop.is_set)
        display.note(f"policy: {origin or 'new weights'}")
        if pretrained:
            display.note(f"goes on with a training that had learned {pretrained:,} decisions")
        done, path = pretrain(
            algorithm,
            store,
            steps,
            learning.pretrain_save_frequency,
            display.phase,
            stop.is_set,
            pretrained or 0,
        )
    display.note(f"learned {done:,} of {steps:,} decisions")
    display.note(f"checkpoint: {path}")
    weights = settings.paths.checkpoints / WEIGHTS_FILE
    write_weights_file(weights, load_module_weights(path))
    display.note(f"weights alone: {weights}")
    if done < steps:
        display.note("interrupted: the same command goes on with the rest")
    if (settings.paths.checkpoints / CHAMPIONS).is_dir():
        display.note(f"let it trade with: trading checkpoints promote {path.name}")
    return path
