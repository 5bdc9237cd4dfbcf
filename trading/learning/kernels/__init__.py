"""The network as compiled loops."""

from typing import TYPE_CHECKING

from trading.lazy import lazily

# For type checkers and editors; `_PLACES` says the same to the interpreter.
if TYPE_CHECKING:
    from trading.learning.kernels.lstm import Layer as Layer
    from trading.learning.kernels.lstm import LayerWeights as LayerWeights
    from trading.learning.kernels.network import Network as Network

_PLACES = {
    "Layer": "lstm",
    "LayerWeights": "lstm",
    "Network": "network",
}
"""Each public name and the module that has it."""

__all__ = [*_PLACES]  # noqa: PLE0604 - they are texts

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, _PLACES)
