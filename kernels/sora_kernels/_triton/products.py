"""Matrix products of tiles."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def product(a, b, onto):
    """The float32 tile onto + a · b, for tiles of one floating dtype.

    The interpreter can't multiply bfloat16, so there the same numbers are multiplied as float32.
    """
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, onto, input_precision="ieee")


@triton.jit
def to_fp8(x):
    """Float32 to the nearest e4m3. The interpreter cuts digits where a GPU rounds, so there they are rounded first."""
    if INTERPRETED:
        bits = x.to(tl.int32, bitcast=True)
        x = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000).to(tl.float32, bitcast=True)
    return x.to(tl.float8e4nv)
