"""What one core can do at most, and which share of it each stage of training reaches.

    python benchmarks/roofline.py

Float32 multiply-adds in registers, and bytes to and from memory: both are measured, since what a
processor's papers say holds for a clock rate that it may not have. A stage of matrix products is
held against the first, one that goes through all weights against the second. The other stages do
neither, and are told with their time alone. What is counted is what has to be done: products by the
shapes of the weights, and each array that is read or written once.
"""

import argparse
from collections.abc import Callable
from time import thread_time
from typing import Any, NamedTuple

import numpy as np
from figures import Figures, add_json, publish
from learning import Ours, Task, stages
from llvmlite import ir
from machine import processor
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_LANES, _SUMS = 16, 12
"""Numbers in a vector, and vectors that add up at the same time: more than one core can begin."""
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)
_REPEATS = 1_000_000
_BYTES = 256 * 2**20
"""Of each array, so that no cache holds it."""


class Peak(NamedTuple):
    """Of one core."""

    flops: float
    """Float32 operations a second; a multiply-add counts as two."""
    bandwidth: float
    """Bytes a second, read and written."""


@intrinsic
def _multiply_add(typing_context: Any, count: Any) -> Any:
    """Multiply and add so many times in registers alone; returns a sum, so that nothing is spared.

    As many chains run side by side as there are `_SUMS`, each of vectors as wide as there are.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), "llvm.fmuladd.v16f32"
        )
        sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(_SUMS)]
        for place, each in enumerate(sums):
            builder.store(ir.Constant(_VECTOR, [float(place)] * _LANES), each)
        factor = ir.Constant(_VECTOR, [0.5] * _LANES)
        with cgutils.for_range(builder, arguments[0]):
            for each in sums:
                builder.store(builder.call(fused, [builder.load(each), factor, factor]), each)
        total = builder.load(sums[0])
        for each in sums[1:]:
            total = builder.fadd(total, builder.load(each))
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.float32(types.intp), build


@njit(nogil=True)
def _in_registers(count: int) -> float:
    return _multiply_add(count)  # type: ignore[no-any-return, call-arg]


@njit(nogil=True, fastmath=True)
def _through_memory(read: np.ndarray, written: np.ndarray) -> None:
    for k in range(len(read)):
        written[k] += read[k]


def shortest(work: Callable[[], Any], tries: int = 5) -> float:
    """Seconds of the thread's processor that the quickest of some tries took."""
    work()
    taken = []
    for _ in range(tries):
        start = thread_time()
        work()
        taken.append(thread_time() - start)
    return min(taken)


def measured() -> Peak:
    """Return what one core of this machine does now; a second or two."""
    count = np.intp(_REPEATS)
    flops = 2.0 * _LANES * _SUMS * _REPEATS / shortest(lambda: _in_registers(count))
    read, written = np.ones(_BYTES // 4, np.float32), np.ones(_BYTES // 4, np.float32)
    seconds = shortest(lambda: _through_memory(read, written))
    return Peak(flops, 3.0 * _BYTES / seconds)


def work_of(trainer: Ours, task: Task) -> dict[str, tuple[float, float]]:
    """Operations and bytes that a step's stages need, by stage: one of the two is 0."""
    weights = {name: shape for name, shape in trainer.weights.items() if len(shape) == 2}
    every = float(sum(a * b for a, b in weights.values()))
    heads = float(sum(a * b for name, (a, b) in weights.items() if name.endswith("head.weight")))
    # Forward and back are a product each; the gradients of the weights are a third one.
    learned = task.epochs * (4.0 * every + 2.0 * heads)
    updates = task.epochs * task.minibatches / task.rollout
    return {
        "acting: network": (2.0 * every, 0.0),
        "learning: forward, loss, backward": (learned, 0.0),
        "learning: gradients of weights": (task.epochs * 2.0 * (every - heads), 0.0),
        # Weights, gradients and two means are read, all but the gradients written.
        "learning: Adam": (0.0, updates * 7 * 4 * trainer.parameters),
        # It is divided, measured and scaled: three passes, two of which write.
        "learning: gradients added, clipped": (0.0, updates * 5 * 4 * trainer.parameters),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of training")
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=64, help="of each environment in a rollout")
    add_json(parser)
    options = parser.parse_args()
    peak = measured()
    core = Figures("one core", {"GFLOP/s, float32": "{:.0f}", "GB/s": "{:.1f}"})
    core.add(processor(), peak.flops / 1e9, peak.bandwidth / 1e9)
    task = Task(390, envs=options.envs, steps=options.steps)
    taken, trainer = stages(task, options.seconds)
    work = work_of(trainer, task)
    columns = {"µs a step": "{:.2f}", "share": "{:.0%}"}
    columns |= {"GFLOP/s": "{:.0f}", "of the peak": "{:.0%}"}
    columns |= {"GB/s": "{:.1f}", "of the bandwidth": "{:.0%}"}
    figures = Figures("stage", columns)
    total, done = sum(taken.values()), 0.0
    for stage, seconds in taken.items():
        flops, moved = work.get(stage, (0.0, 0.0))
        done += flops
        shares: list[float | None] = [None] * 4
        if flops:
            shares[:2] = flops / seconds / 1e9, flops / seconds / peak.flops
        if moved:
            shares[2:] = moved / seconds / 1e9, moved / seconds / peak.bandwidth
        figures.add(stage, 1e6 * seconds, seconds / total, *shares)
    whole = (done / total / 1e9, done / total / peak.flops)
    figures.add("a step", 1e6 * total, 1.0, *whole, None, None)
    figures.note = (
        f"{trainer.parameters:,} parameters, {task.envs} environments, {task.steps} steps, "
        f"{task.epochs} passes, {task.minibatches} minibatches; one thread."
    )
    publish(options, [core, figures])


if __name__ == "__main__":
    main()
