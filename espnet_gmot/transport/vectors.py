"""Vector code for the numba kernels: a register-tiled matrix product and a single-precision exponential.

numba reaches no matrix product without BLAS (whose threads would fight with ours), and LLVM does not keep the
accumulators of a tiled loop in registers by itself, so the tile is emitted as LLVM vector instructions. LLVM splits the
16-lane vectors to whatever the processor has.
"""

from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["FAST", "exp32", "product"]

FAST = {"reassoc", "contract", "arcp", "nsz"}  # never nnan or ninf: the kernels test for both
LANES = 16
ROWS = 4


@intrinsic
def _float_of_bits(typingctx, bits):  # noqa: ANN001, ANN202
    """The float32 with the given int32 bits."""

    def codegen(context, builder, signature, args):  # noqa: ANN001, ANN202
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@njit(inline="always", fastmath=FAST)
def exp32(x):  # noqa: ANN001, ANN201
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


def _tile(vectors: int):  # noqa: ANN202
    """An intrinsic: out[u:u+4, t:t+16·vectors] = coefficients[u:u+4, :depth] @ matrix[:depth, t:t+16·vectors]."""

    @intrinsic
    def tile(typingctx, out, coefficients, matrix, u, t, depth):  # noqa: ANN001, ANN202
        def codegen(context, builder, signature, args):  # noqa: ANN001, ANN202
            arrays = [
                context.make_array(kind)(context, builder, value)
                for kind, value in zip(signature.args[:3], args[:3], strict=True)
            ]
            lines = [
                builder.sdiv(cgutils.unpack_tuple(builder, array.strides)[0], ir.Constant(ir.IntType(64), 4))
                for array in arrays
            ]
            row, column, count = args[3:]
            single = ir.FloatType()
            vector = ir.VectorType(single, LANES)
            multiply_add = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{LANES}f32"
            )
            splat = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)

            def address(which: int, line, offset):  # noqa: ANN001, ANN202
                return builder.gep(arrays[which].data, [builder.add(builder.mul(line, lines[which]), offset)])

            def shifted(value, by: int):  # noqa: ANN001, ANN202
                return builder.add(value, ir.Constant(value.type, by))

            zero = ir.Constant(vector, [0.0] * LANES)
            sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(vectors)] for _ in range(ROWS)]
            for line in sums:
                for slot in line:
                    builder.store(zero, slot)
            with cgutils.for_range(builder, count) as loop:
                wide = []
                for v in range(vectors):
                    pointer = address(2, loop.index, shifted(column, v * LANES))
                    wide.append(builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4))
                for r in range(ROWS):
                    scalar = builder.load(address(1, shifted(row, r), loop.index))
                    lane = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
                    spread = builder.shuffle_vector(lane, ir.Constant(vector, ir.Undefined), splat)
                    for v in range(vectors):
                        total = builder.call(multiply_add, [spread, wide[v], builder.load(sums[r][v])])
                        builder.store(total, sums[r][v])
            for r in range(ROWS):
                for v in range(vectors):
                    pointer = address(0, shifted(row, r), shifted(column, v * LANES))
                    builder.store(builder.load(sums[r][v]), builder.bitcast(pointer, vector.as_pointer()), align=4)
            return context.get_dummy_value()

        flat = types.Array(types.float32, 2, "C")
        if (out, coefficients, matrix) != (flat, flat, flat):
            return None
        return types.none(flat, flat, flat, types.int64, types.int64, types.int64), codegen

    return tile


_tile_wide, _tile_narrow = _tile(2), _tile(1)


@njit(fastmath=FAST)
def product(coefficients, matrix, rows, depth, columns, out):  # noqa: ANN001, ANN201
    """out[:rows, :columns] = coefficients[:rows, :depth] @ matrix[:depth, :columns], one thread.

    `coefficients` and `out` must have a multiple of four rows allocated; the spare rows are computed too.
    """
    if columns >= 2 * LANES:
        tile = 2 * LANES
        for start in range(0, columns, tile):
            first = min(start, columns - tile)  # the last tile overlaps its neighbour instead of passing the end
            for u in range(0, rows, ROWS):
                _tile_wide(out, coefficients, matrix, u, first, depth)
    elif columns >= LANES:
        for start in range(0, columns, LANES):
            first = min(start, columns - LANES)
            for u in range(0, rows, ROWS):
                _tile_narrow(out, coefficients, matrix, u, first, depth)
    else:
        for u in range(rows):
            for t in range(columns):
                total = types.float32(0.0)
                for k in range(depth):
                    total += coefficients[u, k] * matrix[k, t]
                out[u, t] = total
