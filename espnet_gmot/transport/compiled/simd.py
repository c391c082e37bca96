"""Vector code for the numba kernels: a register-tiled matrix product, row products, a single-precision exponential.

numba reaches no matrix product without BLAS (whose threads would fight with ours), and LLVM does not keep the
accumulators of a tiled loop in registers by itself, so the tile is emitted as LLVM vector instructions. LLVM splits the
16-lane vectors to whatever the processor has.
"""

from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["FAST", "add_rows", "dot_rows", "exp32", "product"]

FAST = {"reassoc", "contract", "arcp", "nsz"}  # never nnan or ninf: the kernels test for both
LANES = 16
ROWS = 4
PANEL = 256  # depth of a product's panel: 32 columns of it fill half a first-level cache


@intrinsic
def _float_of_bits(typingctx, bits):
    """The float32 with the given int32 bits."""

    def codegen(context, builder, signature, args):
        """Emits one bit cast."""
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@njit(inline="always", fastmath=FAST, error_model="numpy")
def exp32(x):
    """exp in float32 to 2 ulp, branch-free so that loops over it vectorise; clamped to [e⁻⁸⁷, e⁸⁷]."""
    x = min(max(x, types.float32(-87.0)), types.float32(87.0))
    whole = types.int32(x * types.float32(1.44269504) + types.float32(127.5))  # 127 + round(x / ln 2)
    part = types.float32(whole - types.int32(127))
    r = x - part * types.float32(0.693359375)
    r = r + part * types.float32(2.12194440e-4)
    p = types.float32(1.9875691500e-4)
    p = p * r + types.float32(1.3981999507e-3)
    p = p * r + types.float32(8.3334519073e-3)
    p = p * r + types.float32(4.1665795894e-2)
    p = p * r + types.float32(1.6666665459e-1)
    p = p * r + types.float32(5.0000001201e-1)
    return (p * r * r + r + types.float32(1.0)) * _float_of_bits(types.int32(whole << types.int32(23)))


class _Emitter:
    """LLVM vector instructions over float32 arrays, written once for the three intrinsics below."""

    def __init__(self, context, builder, signature, args, arrays: int) -> None:
        self.builder = builder
        self.arrays = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:arrays], args[:arrays], strict=True)
        ]
        self.scalars = args[arrays:]
        self.lane = ir.FloatType()
        self.vector = ir.VectorType(self.lane, LANES)
        self.zero = ir.Constant(self.vector, [0.0] * LANES)
        self._multiply_add = self._declare("llvm.fmuladd", [self.vector] * 3, self.vector)

    def _declare(self, name: str, takes: list, gives):
        kind = ir.FunctionType(gives, takes)
        return cgutils.get_or_insert_function(self.builder.module, kind, f"{name}.v{LANES}f32")

    def shifted(self, value, by: int):
        """An index plus a constant."""
        return self.builder.add(value, ir.Constant(value.type, by))

    def address(self, which: int, *index):
        """Pointer to an element of a C-contiguous array of one or two dimensions."""
        builder, array = self.builder, self.arrays[which]
        offset = index[-1]
        if len(index) == 2:
            size = cgutils.unpack_tuple(builder, array.shape)[1]
            offset = builder.add(builder.mul(index[0], size), offset)
        return builder.gep(array.data, [offset])

    def load(self, which: int, *index):
        """The vector that begins at an element."""
        pointer = self.builder.bitcast(self.address(which, *index), self.vector.as_pointer())
        return self.builder.load(pointer, align=4)

    def store(self, value, which: int, *index) -> None:
        """Write a vector from an element on."""
        pointer = self.builder.bitcast(self.address(which, *index), self.vector.as_pointer())
        self.builder.store(value, pointer, align=4)

    def spread(self, scalar):
        """One number in every lane."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, ir.IntType(32)(0))
        return self.builder.shuffle_vector(
            one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        )

    def multiply_add(self, a, b, c):
        """a·b + c, lane by lane."""
        return self.builder.call(self._multiply_add, [a, b, c])

    def total(self, value):
        """Sum of the lanes."""
        reduce = self._declare("llvm.vector.reduce.fadd", [self.lane, self.vector], self.lane)
        return self.builder.call(reduce, [ir.Constant(self.lane, 0.0), value], fastmath=("reassoc",))

    def accumulators(self, count: int) -> list:
        """Zeroed vector variables; LLVM keeps them in registers."""
        slots = [cgutils.alloca_once_value(self.builder, self.zero) for _ in range(count)]
        for slot in slots:
            self.builder.store(self.zero, slot)
        return slots

    def accumulate(self, slot, a, b) -> None:
        """Add a·b to a vector variable."""
        self.builder.store(self.multiply_add(a, b, self.builder.load(slot)), slot)


_FLAT, _LINE, _INDEX = types.Array(types.float32, 2, "C"), types.Array(types.float32, 1, "C"), types.int64


def _tile(vectors: int):
    """An intrinsic: out[u:u+4, t:t+16·vectors] (+)= coefficients[u:u+4, k:end] @ matrix[k:end, t:t+16·vectors].

    It overwrites where k = 0 and adds where it is not.
    """

    @intrinsic
    def tile(typingctx, out, coefficients, matrix, u, t, k, end):
        """See `_tile`."""

        def codegen(context, builder, signature, args):
            """Emits the loop over k, with the tile in registers."""
            e = _Emitter(context, builder, signature, args, 3)
            row, column, begin, end = e.scalars
            sums = e.accumulators(ROWS * vectors)
            with builder.if_then(builder.icmp_signed(">", begin, begin.type(0))):
                for r in range(ROWS):
                    for v in range(vectors):
                        so_far = e.load(0, e.shifted(row, r), e.shifted(column, v * LANES))
                        builder.store(so_far, sums[r * vectors + v])
            with cgutils.for_range_slice(builder, begin, end, begin.type(1), inc=True) as (depth, _):
                wide = [e.load(2, depth, e.shifted(column, v * LANES)) for v in range(vectors)]
                for r in range(ROWS):
                    factor = e.spread(builder.load(e.address(1, e.shifted(row, r), depth)))
                    for v in range(vectors):
                        e.accumulate(sums[r * vectors + v], factor, wide[v])
            for r in range(ROWS):
                for v in range(vectors):
                    value = builder.load(sums[r * vectors + v])
                    e.store(value, 0, e.shifted(row, r), e.shifted(column, v * LANES))
            return context.get_dummy_value()

        return types.none(_FLAT, _FLAT, _FLAT, _INDEX, _INDEX, _INDEX, _INDEX), codegen

    return tile


_tile_wide, _tile_narrow = _tile(2), _tile(1)


@intrinsic
def dot_rows(typingctx, matrix, line, out, u):
    """out[u:u+4] = matrix[u:u+4] @ line; the width must be a multiple of 16."""

    def codegen(context, builder, signature, args):
        """Emits the loop over columns, with four sums in registers."""
        e = _Emitter(context, builder, signature, args, 3)
        (row,) = e.scalars
        width = cgutils.unpack_tuple(builder, e.arrays[1].shape)[0]
        sums = e.accumulators(ROWS)
        with cgutils.for_range_slice(builder, width.type(0), width, width.type(LANES), inc=True) as (column, _):
            factor = e.load(1, column)
            for r in range(ROWS):
                e.accumulate(sums[r], e.load(0, e.shifted(row, r), column), factor)
        for r in range(ROWS):
            builder.store(e.total(builder.load(sums[r])), e.address(2, e.shifted(row, r)))
        return context.get_dummy_value()

    return types.none(_FLAT, _LINE, _LINE, _INDEX), codegen


@intrinsic
def add_rows(typingctx, matrix, factors, out, u):
    """out += factors[u:u+4] @ matrix[u:u+4]; the width must be a multiple of 16."""

    def codegen(context, builder, signature, args):
        """Emits the loop over columns, with four factors in registers."""
        e = _Emitter(context, builder, signature, args, 3)
        (row,) = e.scalars
        width = cgutils.unpack_tuple(builder, e.arrays[2].shape)[0]
        wide = [e.spread(builder.load(e.address(1, e.shifted(row, r)))) for r in range(ROWS)]
        with cgutils.for_range_slice(builder, width.type(0), width, width.type(LANES), inc=True) as (column, _):
            value = e.load(2, column)
            for r in range(ROWS):
                value = e.multiply_add(e.load(0, e.shifted(row, r), column), wide[r], value)
            e.store(value, 2, column)
        return context.get_dummy_value()

    return types.none(_FLAT, _LINE, _LINE, _INDEX), codegen


@njit(fastmath=FAST, error_model="numpy")
def product(coefficients, matrix, rows, depth, columns, out):
    """out[:rows, :columns] = coefficients[:rows, :depth] @ matrix[:depth, :columns], one thread.

    `coefficients` and `out` must have a multiple of four rows allocated; the spare rows are computed too.
    """
    if columns >= LANES:
        tile = 2 * LANES if columns >= 2 * LANES else LANES
        for start in range(0, columns, tile):
            first = min(start, columns - tile)  # the last tile overlaps its neighbour instead of passing the end
            for k in range(0, max(depth, 1), PANEL):
                end = min(k + PANEL, depth)
                for u in range(0, rows, ROWS):
                    if tile == LANES:
                        _tile_narrow(out, coefficients, matrix, u, first, k, end)
                    else:
                        _tile_wide(out, coefficients, matrix, u, first, k, end)
    else:
        for u in range(rows):
            for t in range(columns):
                total = types.float32(0.0)
                for k in range(depth):
                    total += coefficients[u, k] * matrix[k, t]
                out[u, t] = total
