"""Freed memory is kept: the next tensors of the same size touch no new page."""

import subprocess
import sys

import pytest

from tests.waits import WAIT_S

SCRIPT = """
import resource, sys
import torch
from trading.learning.allocator import keep_freed_memory

if not keep_freed_memory():
    sys.exit(3)

def minibatch():
    return [torch.ones(1 << 18) for _ in range(16)]

for _ in range(3):
    minibatch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    minibatch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_tensors_of_a_size_that_was_freed_cost_hardly_any_page_fault() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    if done.returncode == 3:
        pytest.skip("this C library has no mallopt")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4_000  # 40,960 pages of 4 KiB are written to, most freed before


def test_new_tensors_are_not_filled_although_algorithms_are_deterministic() -> None:
    script = (
        "import torch\n"
        "from trading.learning.allocator import leave_new_memory_as_it_is\n"
        "torch.use_deterministic_algorithms(True)\n"
        "kept = torch.empty(1000)\n"
        "assert kept.isnan().all()\n"
        "leave_new_memory_as_it_is()\n"
        "torch.ones(1000)\n"
        "assert not torch.empty(1000).isnan().all()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
