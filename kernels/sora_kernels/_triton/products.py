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
