"""PyTorch without its compiler: what is computed is the same, and nothing imports it."""

import subprocess
import sys

import torch

from trading.learning.uncompiled import Adam

TRAIN = """
import os, sys
os.environ["RAY_AUTH_MODE"] = "disabled"
from trading.learning import CLSTMPPOConfig
import torch
config = CLSTMPPOConfig().environment("CartPole-v1").debugging(seed=1, log_level="ERROR")
config = config.env_runners(num_envs_per_env_runner=2, rollout_fragment_length=8)
algorithm = config.build_algo()
algorithm.train()
print(torch.are_deterministic_algorithms_enabled())
print({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules))
"""
COMPILE = """
import torch
from trading.config import ModelSettings
from trading.learning.clstm import CLSTM, CLSTMConfig
from trading.learning.uncompiled import leave_the_compiler_out
leave_the_compiler_out()
torch.use_deterministic_algorithms(True)
CLSTM(CLSTMConfig(observation_size=3, action_count=2, **ModelSettings().model_dump())).compile()
import torch._inductor.config
print(torch._inductor.config.deterministic)
"""


def printed(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_training_with_a_seed_is_deterministic_and_imports_no_compiler() -> None:
    assert printed(TRAIN)[-2:] == ["True", "set()"]


def test_a_compiler_that_is_used_hears_of_deterministic_algorithms() -> None:
    assert printed(COMPILE) == ["True"]


def test_adam_is_pytorchs_to_the_bit_and_their_states_are_one_anothers() -> None:
    def after(kind: type[torch.optim.Adam], other: type[torch.optim.Adam]) -> torch.Tensor:
        torch.manual_seed(1)
        weights = torch.nn.Parameter(torch.randn(5, 3))
        inputs = torch.randn(20, 3)

        def learn(optimizer: torch.optim.Adam, rows: torch.Tensor) -> None:
            for row in rows:
                optimizer.zero_grad()
                (weights @ row).square().sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()

        first = kind([weights], fused=True, lr=0.01)
        learn(first, inputs[:10])
        second = other([weights], fused=True, lr=0.02)
        second.load_state_dict(first.state_dict())
        learn(second, inputs[10:])
        return weights.detach()

    theirs = after(torch.optim.Adam, torch.optim.Adam)
    assert theirs.isfinite().all()
    for pair in ((Adam, Adam), (Adam, torch.optim.Adam), (torch.optim.Adam, Adam)):
        assert torch.equal(after(*pair), theirs)
