"""Matrix products of few rows with weights that are packed once, as one register-blocked loop.

BLAS is made for large matrices: it packs both sides on every call, which costs as much as the
product of 8 to 32 rows itself. Here the weights are packed once for all steps of a call, which are
those of a thread's share of a minibatch, or the one of a decision; in panels as wide as a tile. A
tile of the product stays in the processor's registers from the first term to the last, and a panel
in its first cache from tile to tile (K. Goto and R. van de Geijn, "Anatomy of high-performance
matrix multiplication", ACM TOMS 34 (2008)).
"""

from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

FloatArray = npt.NDArray[np.float32]

kernel = njit(
    cache=True,
    nogil=True,
    error_model="numpy",
    # All but nnan and ninf: a NaN must come out as one.
    fastmath={"contract", "reassoc", "nsz", "arcp"},
)

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, 16)
"""Processors with narrower registers take several of them."""


def _registers_are_wide() -> bool:
    """Whether the processor that kernels are compiled for adds 16 numbers in one register."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR]), "add")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(builder.fadd(*function.args))
    parsed = llvm.parse_assembly(str(module))
    # Numba's own machine: of the processor that NUMBA_CPU_NAME says, or of this one.
    return "zmm" in cpu_target.target_context.codegen()._tm.emit_assembly(parsed)


_VECTORS, TALL = (2, 8) if _registers_are_wide() else (1, 4)
"""Vectors in a row of a tile, and rows: as many sums as there are registers for them."""

WIDTH = 16 * _VECTORS
"""Columns of a tile, and of a panel."""

_TERMS = 128
"""Rows of a panel that stays in the first cache while all rows of the left side pass by."""

_ZERO = np.float32(0.0)


class Packed(NamedTuple):
    """A matrix [K, N] that others are multiplied with."""

    panels: FloatArray
    """float32 [ceil(N / WIDTH), K, WIDTH]; zeros behind the last column."""


def _tile(rows: int, transposed: bool) -> Any:
    """Make the loop over one tile of a product, for so many rows."""

    @intrinsic
    def tile(
        typing_context: Any,
        left: Any,
        left_at: Any,
        left_stride: Any,
        right: Any,
        right_at: Any,
        right_stride: Any,
        terms: Any,
        out: Any,
        out_at: Any,
        out_stride: Any,
        adds: Any,
    ) -> Any:
        """Fill out[r, j] = sum over k of left[r, k] right[k, j]; places count in the arrays' data.

        Where `transposed`, left lies as [k, r]; where `adds`, the sum comes on top of `out`.
        """

        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def data(index: int) -> Any:
                array = context.make_array(signature.args[index])(
                    context, builder, arguments[index]
                )
                return builder.gep(array.data, [arguments[index + 1]])

            def vector_at(pointer: Any) -> Any:
                return builder.bitcast(pointer, _VECTOR.as_pointer())

            def load(pointer: Any) -> Any:
                found = builder.load(vector_at(pointer))
                found.align = 4
                return found

            lefts, rights, outs = data(0), data(3), data(7)
            left_stride, right_stride, count = arguments[2], arguments[5], arguments[6]
            word = left_stride.type
            # Fused where the processor can, and two operations elsewhere.
            multiply_add = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), "llvm.fmuladd.v16f32"
            )

            def place(row: int, vector: int) -> Any:
                along = builder.add(builder.mul(arguments[9], word(row)), word(16 * vector))
                return builder.gep(outs, [along])

            sums = {}
            for row in range(rows):
                for vector in range(_VECTORS):
                    sums[row, vector] = cgutils.alloca_once(builder, _VECTOR)
            with builder.if_else(arguments[10]) as (then, otherwise):
                with then:
                    for key, total in sums.items():
                        builder.store(load(place(*key)), total)
                with otherwise:
                    for total in sums.values():
                        builder.store(ir.Constant(_VECTOR, None), total)
            with cgutils.for_range(builder, count) as loop:
                begin = builder.gep(rights, [builder.mul(loop.index, right_stride)])
                factors = [
                    load(builder.gep(begin, [word(16 * vector)])) for vector in range(_VECTORS)
                ]
                for row in range(rows):
                    if transposed:
                        along = builder.add(builder.mul(loop.index, left_stride), word(row))
                    else:
                        along = builder.add(builder.mul(left_stride, word(row)), loop.index)
                    one = builder.load(builder.gep(lefts, [along]))
                    first = builder.insert_element(
                        ir.Constant(_VECTOR, ir.Undefined), one, ir.IntType(32)(0)
                    )
                    every = builder.shuffle_vector(
                        first,
                        ir.Constant(_VECTOR, ir.Undefined),
                        ir.Constant(ir.VectorType(ir.IntType(32), 16), [0] * 16),
                    )
                    for vector in range(_VECTORS):
                        total = sums[row, vector]
                        builder.store(
                            builder.call(
                                multiply_add, [every, factors[vector], builder.load(total)]
                            ),
                            total,
                        )
            for key, total in sums.items():
                stored = builder.store(builder.load(total), vector_at(place(*key)))
                stored.align = 4
            return context.get_dummy_value()

        whole = types.intp
        signature = types.none(
            left, whole, whole, right, whole, whole, whole, out, whole, whole, types.boolean
        )
        return signature, build

    return tile


_tall, _half, _one = _tile(TALL, False), _tile(TALL // 2, False), _tile(1, False)
_across = _tile(TALL, True)


@kernel
def pack(right: FloatArray) -> Packed:
    """Lay out a matrix [K, N] in panels; twin of `torch.clone`."""
    packed: Packed = pack_beside(right, np.empty((len(right), 0), np.float32))
    return packed


@kernel
def pack_beside(left: FloatArray, right: FloatArray) -> Packed:
    """Lay out two matrices [K, N] side by side as one; twin of `torch.cat` along columns."""
    terms, first = left.shape
    columns = first + right.shape[1]
    panels = np.zeros((-(-columns // WIDTH), terms, WIDTH), np.float32)
    for k in range(terms):
        for j in range(first):
            panels[j // WIDTH, k, j % WIDTH] = left[k, j]
        for j in range(first, columns):
            panels[j // WIDTH, k, j % WIDTH] = right[k, j - first]
    return Packed(panels)


@kernel
def pack_across(upper: FloatArray, lower: FloatArray) -> Packed:
    """Lay out two matrices [N, K] transposed, one above the other, as one; twin of `torch.cat`."""
    columns, first = upper.shape
    terms = first + lower.shape[1]
    panels = np.zeros((-(-columns // WIDTH), terms, WIDTH), np.float32)
    for j in range(columns):
        panel, place = j // WIDTH, j % WIDTH
        for k in range(first):
            panels[panel, k, place] = upper[j, k]
        for k in range(first, terms):
            panels[panel, k, place] = lower[j, k - first]
    return Packed(panels)


@kernel
def multiply(left: FloatArray, right: Packed, product: FloatArray) -> None:
    """Fill `product` [M, N] with left [M, K] times right [K, N]; twin of `torch.mm`."""
    rows, terms = left.shape
    columns, panels = product.shape[1], right.panels
    spare = np.empty((TALL, WIDTH), np.float32)
    for panel in range(len(panels)):
        first, begin = panel * WIDTH, panel * terms * WIDTH
        width = min(WIDTH, columns - first)
        row = 0
        while row < rows:
            # Where a panel is not full, by way of `spare`: to write nothing behind a row.
            out, place, stride = product, row * columns + first, columns
            if width < WIDTH:
                out, place, stride = spare, 0, WIDTH
            at, size = row * terms, 1
            if rows - row >= TALL:
                size = TALL
                _tall(left, at, terms, panels, begin, WIDTH, terms, out, place, stride, False)
            elif rows - row >= TALL // 2:
                size = TALL // 2
                _half(left, at, terms, panels, begin, WIDTH, terms, out, place, stride, False)
            else:
                _one(left, at, terms, panels, begin, WIDTH, terms, out, place, stride, False)
            if width < WIDTH:
                for r in range(size):
                    for j in range(width):
                        product[row + r, first + j] = spare[r, j]
            row += size


@kernel
def multiply_across(left: FloatArray, right: FloatArray) -> FloatArray:
    """Return left [K, M] transposed, times right [K, N]; twin of `torch.mm`.

    Both sides are packed as they pass by, some rows at a time.
    """
    terms, rows = left.shape
    columns = right.shape[1]
    product = np.zeros((rows, columns), np.float32)
    panels = np.zeros((-(-columns // WIDTH), _TERMS, WIDTH), np.float32)
    strip = np.zeros((_TERMS, TALL), np.float32)
    spare = np.zeros((TALL, WIDTH), np.float32)
    for begin in range(0, terms, _TERMS):
        count = min(_TERMS, terms - begin)
        for panel in range(len(panels)):
            _take(right, begin, count, panel * WIDTH, WIDTH, panels[panel])
        for row in range(0, rows, TALL):
            height = min(TALL, rows - row)
            _take(left, begin, count, row, TALL, strip)
            for panel in range(len(panels)):
                first, at = panel * WIDTH, panel * _TERMS * WIDTH
                width = min(WIDTH, columns - first)
                if height == TALL and width == WIDTH:
                    place = row * columns + first
                    _across(strip, 0, TALL, panels, at, WIDTH, count, product, place, columns, True)
                    continue
                _across(strip, 0, TALL, panels, at, WIDTH, count, spare, 0, WIDTH, False)
                for r in range(height):
                    for j in range(width):
                        product[row + r, first + j] += spare[r, j]
    return product


@kernel
def _take(
    matrix: FloatArray, begin: int, count: int, first: int, width: int, out: FloatArray
) -> None:
    """Copy some rows of a few columns; twin of `torch.narrow_copy`.

    Of the last columns there may be fewer than `width`.
    """
    there = min(width, matrix.shape[1] - first)
    if there == TALL:  # a number that the compiler knows
        for k in range(count):
            for j in range(TALL):
                out[k, j] = matrix[begin + k, first + j]
    elif there == WIDTH:
        for k in range(count):
            for j in range(WIDTH):
                out[k, j] = matrix[begin + k, first + j]
    else:
        for k in range(count):
            for j in range(there):
                out[k, j] = matrix[begin + k, first + j]
