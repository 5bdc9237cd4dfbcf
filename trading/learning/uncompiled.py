"""PyTorch without its compiler, which nothing here needs on a processor.

Importing it takes a second of the processor and 70 MB. PyTorch does so to tell it of deterministic
algorithms, for which RLlib asks where there is a seed, and to have it keep away from an optimizer.
"""

import sys
from inspect import unwrap
from typing import Any

import torch

_set_deterministic = torch.use_deterministic_algorithms


class Adam(torch.optim.Adam):
    """PyTorch's own, each method without what has the compiler keep away from it."""

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))


def leave_the_compiler_out() -> None:
    """Have deterministic algorithms be set without the compiler, in this process and for good.

    One that is imported already is told as before; before one is used, see `tell_the_compiler`.
    """
    torch.use_deterministic_algorithms = _set_deterministic_without_compiler


def tell_the_compiler() -> None:
    """Tell the compiler, which is now to be used, whether algorithms are deterministic."""
    import torch._inductor.config

    mode = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    _set_deterministic(mode, warn_only=warn_only)


def _set_deterministic_without_compiler(mode: Any, *, warn_only: bool = False) -> None:
    if "torch._inductor" in sys.modules:
        _set_deterministic(mode, warn_only=warn_only)
    else:
        torch._C._set_deterministic_algorithms(mode, warn_only=warn_only)
