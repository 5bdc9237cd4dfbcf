"""Arrays that a kernel looks at without counting who else does.

Each view that a kernel takes of an array counts a reference, and drops it: two atomic operations,
tens of cycles. A kernel that takes dozens of views for every market spends more on that than on the
market. What it borrows it may view for free.
"""

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def borrowed(typing_context: Any, value: Any) -> Any:
    """Return an array, or a tuple of arrays and numbers, as it is, without a share in its memory.

    For compiled functions. The caller's own arrays must outlive it: what is borrowed from a
    parameter must not be returned, nor kept.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _unowned(context, builder, value, arguments[0])

    return value(value), build


def _unowned(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        array.parent = cgutils.get_null_value(array.parent.type)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        for index, inner in enumerate(kind):
            each = _unowned(context, builder, inner, builder.extract_value(value, index))
            value = builder.insert_value(value, each, index)
    return value
