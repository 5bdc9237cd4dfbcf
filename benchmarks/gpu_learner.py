"""The learner's update on a GPU or on one core: speed, use of the hardware, where the time goes.

To repeat it, on a machine with a GPU and on one without:

    python benchmarks/gpu_learner.py
    python benchmarks/gpu_learner.py --device cpu --hidden 64 --sequences 64

One round is one whole `trading.learning.ppo_update.update`: advantages, the copy to the device, all
passes, gradients, Adam. The experience is random, with an episode's end about every hundred steps,
and by default of the size that this project's environment gives.
Compilation and a first update are outside of it; the contenders take turns, and the median of the
rounds counts. A CPU keeps to one thread, and its seconds are the processor's.

MFU is the model's arithmetic over the device's peak of the same precision:

    samples/s x passes x 3 x FLOP of one step forward / peak

Forward counts matrix products only, two FLOP for a multiplication and an addition: 8 H (I + H) for
an LSTM layer of I inputs and H units, 2 I O for a linear layer; backward costs twice as much. Peaks
are of dense products, from the vendor's data sheets; `--peak-tflops` gives others.

Kernels are grouped by name, on a GPU by those of its kernels, on a CPU by those of PyTorch's
operators, where all that torch.compile made counts as elementwise. cuDNN runs an LSTM partly by
products that cannot be told from others: they count as matmul. Nothing here needs Ray.
"""

import argparse
import math
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from figures import Figures, add_json, publish
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from trading.config import LearningSettings, ModelSettings
from trading.learning.clstm import CLSTM, CLSTMConfig
from trading.learning.policy import seeded_clstm
from trading.learning.ppo_update import PRECISIONS, PPOSettings, update
from trading.learning.rollout import Rollout

torch._dynamo.config.recompile_limit = 64  # one network for each contender

EPISODE_STEPS = 100

PEAK_TFLOPS: dict[str, tuple[float, float, float]] = {
    "H200": (67.0, 494.7, 989.4),
    "H100 PCIe": (51.2, 378.0, 756.0),
    "H100": (66.9, 494.7, 989.4),
    "A100": (19.5, 156.0, 312.0),
    "A10": (31.2, 62.5, 125.0),
    "L40S": (91.6, 183.0, 362.0),
    "L4": (30.3, 60.0, 121.0),
}
"""Dense TFLOP/s in fp32, tf32 and bf16 by a part of the device's name; the first that fits."""

GROUPS: dict[str, str] = {
    "optimizer": r"adam|multi_tensor|foreach|optimizer",
    "lstm": r"rnn|lstm|gru",
    "matmul": r"gemm|cutlass|nvjet|splitk|::(mm|addmm|bmm|matmul|linear|mkldnn_linear)$",
    "copy": r"memcpy|memset|copy|::(index|gather|scatter|cat|clone|to|contiguous|zero_|fill_)"
    r"|indexselect|index_|gather|scatter|catarray",
    "elementwise": r"elementwise|reduce|softmax|triton|torch-compiled|compiledfunction|norm|"
    r"::(add|sub|mul|div|exp|log|sum|mean|where|masked_fill|minimum|clamp|square|neg|sqrt|tanh"
    r"|sigmoid|threshold|abs|gt|ge|lt|le|eq|bitwise_not|pow|reciprocal|any|isfinite)",
}
"""Kernels by what is in their lower-case names; the first that fits, else "other"."""


def kernel_group(name: str) -> str:
    lower = name.lower()
    return next((group for group, names in GROUPS.items() if re.search(names, lower)), "other")


def forward_flop(config: CLSTMConfig) -> int:
    """FLOP of the matrix products of one step of one sequence, forward."""
    inputs, feature = config.observation_size, config.feature_hidden
    layers = [(inputs, feature), (feature, config.actor_hidden), (feature, config.critic_hidden)]
    lstms = sum(8 * hidden * (size + hidden) for size, hidden in layers)
    return lstms + 2 * config.actor_hidden * config.action_count + 2 * config.critic_hidden


def random_rollout(config: CLSTMConfig, steps: int, sequences: int) -> Rollout:
    rng = np.random.default_rng(1)
    shape = (steps, sequences)
    mask = rng.random((*shape, config.action_count)) < 0.5
    mask[..., 0] = True
    truncated = rng.random(shape) < 1.0 / EPISODE_STEPS
    first = np.zeros(shape, np.bool_)
    first[1:] = truncated[:-1]
    values, rewards, finals = rng.normal(size=(3, *shape)).astype(np.float32)
    return Rollout(
        observations=rng.normal(size=(*shape, config.observation_size)).astype(np.float32),
        action_mask=mask,
        actions=np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=-1),
        log_probs=-np.log(mask.sum(axis=-1)).astype(np.float32),
        values=values,
        rewards=rewards,
        first=first,
        terminated=np.zeros(shape, np.bool_),
        truncated=truncated,
        final_values=np.where(truncated, finals, np.float32(0)),
        last_values=rng.normal(size=sequences).astype(np.float32),
        valid=np.ones(shape, np.bool_),
        initial_state={
            key: np.zeros((layers, sequences, hidden), np.float32)
            for key, (layers, hidden) in config.state_shapes.items()
        },
    )


@dataclass
class Contender:
    name: str
    model: CLSTM
    settings: PPOSettings
    rollout: Rollout
    seconds: list[float] = field(default_factory=list)
    """Of one update, in each round."""

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-5, fused=True)
        self.generator = torch.Generator().manual_seed(0)

    @property
    def device(self) -> torch.device:
        return self.model.value_head.weight.device

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self.rollout.steps / statistics.median(self.seconds)

    @property
    def tflops(self) -> float:
        """TFLOP/s of the model's arithmetic."""
        return self.rate * self.settings.epochs * 3 * forward_flop(self.model.config) / 1e12

    def learn(self) -> None:
        update(self.model, self.optimizer, self.rollout, self.settings, self.generator)

    def timed(self) -> float:
        if self.device.type == "cpu":
            start = time.process_time()
            self.learn()
            return time.process_time() - start
        torch.cuda.synchronize()
        start = time.perf_counter()
        self.learn()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    def shares(self) -> tuple[dict[str, float], float]:
        """Each group's share of the kernels' time, and on a GPU theirs of the update's."""
        on_gpu = self.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
        for _ in range(2):  # the first sets the profiler up
            with profile(activities=activities) as profiler:
                self.learn()
                if on_gpu:
                    torch.cuda.synchronize()
        groups = dict.fromkeys((*GROUPS, "other"), 0.0)
        for event in profiler.key_averages():
            if on_gpu and event.device_type == DeviceType.CUDA:
                groups[kernel_group(event.key)] += event.self_device_time_total
            elif not on_gpu:
                groups[kernel_group(event.key)] += event.self_cpu_time_total
        total = sum(groups.values())
        busy = total / 1e6 / statistics.median(self.seconds) if on_gpu else math.nan
        return {name: spent / total for name, spent in groups.items()}, busy


def contenders(arguments: argparse.Namespace) -> Iterator[Contender]:
    for hidden in arguments.hidden:
        config = CLSTMConfig(
            observation_size=arguments.observations,
            action_count=arguments.actions,
            **ModelSettings(
                feature_hidden=hidden, actor_hidden=hidden, critic_hidden=hidden
            ).model_dump(),
        )
        rollout = random_rollout(config, arguments.steps, arguments.sequences)
        for variant in arguments.variants:
            precision, *compiled = variant.split("+")
            settings = replace(
                PPOSettings.of(LearningSettings(), gamma=0.99),
                epochs=arguments.epochs,
                minibatches=arguments.minibatches,
                precision=precision,
                compile=bool(compiled),
            )
            model = seeded_clstm(config, seed=0).to(arguments.device)
            yield Contender(f"{hidden}, {variant}", model, settings, rollout)


def peak_tflops(arguments: argparse.Namespace) -> tuple[float, float, float]:
    """In fp32, tf32 and bf16; NaN where it is not known."""
    if arguments.peak_tflops is not None:
        return tuple(arguments.peak_tflops)
    if arguments.device == "cuda":
        name = torch.cuda.get_device_name()
        for part, peaks in PEAK_TFLOPS.items():
            if part in name:
                return peaks
    return math.nan, math.nan, math.nan


def measure(arguments: argparse.Namespace) -> Figures:
    found = list(contenders(arguments))
    for contender in found:
        contender.learn()
    for _ in range(arguments.rounds):
        for contender in found:
            contender.seconds.append(contender.timed())
    peaks = dict(zip(PRECISIONS, peak_tflops(arguments), strict=True))
    base = f"{arguments.variants[0]} is"
    columns = {"parameters": "{:,}", "samples/s": "{:,.0f}", "spread": "{:.0%}", base: "{:.2f} x"}
    columns |= {"TFLOP/s": "{:.4f}", "MFU": "{:.2%}"}
    columns |= dict.fromkeys((*GROUPS, "other", "GPU busy"), "{:.0%}")
    table = Figures("units, arithmetic", columns)
    for index, contender in enumerate(found):
        first = found[index - index % len(arguments.variants)]
        mfu = contender.tflops / peaks[contender.settings.precision]
        groups, busy = contender.shares()
        seconds = contender.seconds
        table.add(
            contender.name,
            sum(p.numel() for p in contender.model.parameters()),
            contender.rate,
            (max(seconds) - min(seconds)) / statistics.median(seconds),
            contender.rate / first.rate,
            contender.tflops,
            "unknown" if math.isnan(mfu) else mfu,
            *groups.values(),
            None if math.isnan(busy) else busy,
        )
    where = "one core of a CPU" if arguments.device == "cpu" else torch.cuda.get_device_name()
    table.note = (
        f"{where}, torch {torch.__version__}; {arguments.steps} steps of {arguments.sequences} "
        f"sequences, {arguments.observations} features, {arguments.actions} actions, "
        f"{arguments.epochs} passes, {arguments.minibatches} minibatches."
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the learner's update.")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda where there is")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 256, 1024], help="units")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=1024)
    parser.add_argument("--observations", type=int, default=42)
    parser.add_argument("--actions", type=int, default=38)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    variants = [precision + how for how in ("", "+compiled") for precision in PRECISIONS]
    parser.add_argument("--variants", nargs="+", choices=variants, help="default: all that differ")
    parser.add_argument(
        "--peak-tflops", type=float, nargs=3, metavar=("FP32", "TF32", "BF16"), help="of the device"
    )
    add_json(parser)
    arguments = parser.parse_args()
    if arguments.device is None:
        arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu runs on one core")
    if arguments.variants is None:
        on_gpu = arguments.device == "cuda"
        arguments.variants = [v for v in variants if on_gpu or not v.startswith("tf32")]
    torch.set_num_threads(1)
    publish(arguments, [measure(arguments)], width=180)


if __name__ == "__main__":
    main()
