"""Which blocks make attention fastest on this GPU: compiles the candidates side by side, then times them in turn.

    PYTHONPATH=kernels python kernels/bench/sweep_attention.py

Prints a table for each kernel and width of heads, fastest first, beside PyTorch's cuDNN and flash in the same run; what
it finds is for `EXACT` and `INT8` of `sora_kernels/_triton/blocks.py`. A result that is wrong is told, not timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import TimeoutError, get_context

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = {128: (1, 12, 32760), 64: (1, 24, 16384)}
"""Width of heads: batch, heads, tokens. The first is Wan 1.3B at 480p."""
BLOCKS = {
    ("exact", 128): (
        (128, 128, 8, 2), (128, 128, 8, 3), (128, 64, 8, 3), (128, 64, 8, 4), (128, 64, 4, 2), (128, 32, 4, 3),
        (64, 128, 4, 2), (64, 64, 4, 2),
    ),
    ("exact", 64): (
        (128, 128, 8, 2), (128, 128, 8, 3), (128, 128, 4, 2), (128, 64, 8, 3), (128, 64, 4, 3), (64, 128, 4, 3),
    ),
    ("int8", 128): (
        (128, 128, 8, 2), (128, 128, 8, 3), (128, 128, 8, 4), (128, 64, 8, 4), (64, 128, 4, 2), (64, 128, 4, 3),
        (64, 64, 4, 3),
    ),
    ("int8", 64): ((128, 128, 8, 3), (128, 64, 8, 3), (128, 64, 4, 3), (64, 128, 4, 3)),
    ("int8, sums in fp8", 128): ((128, 128, 8, 3), (128, 64, 4, 2), (128, 64, 4, 3), (128, 32, 4, 3), (64, 128, 4, 3)),
    ("int8, sums in fp8", 64): ((128, 128, 8, 3), (128, 64, 4, 3)),
    ("int8, 16-bit values", 128): ((128, 128, 8, 2), (128, 64, 8, 3)),
    ("exact, pointers", 128): ((128, 128, 8, 2), (128, 64, 8, 3)),
    ("int8, pointers", 128): ((128, 128, 8, 3),),
}  # fmt: skip
"""By kernel and width of heads: queries, keys, warps, stages. What the tables of `blocks.py` have is among them."""


PATIENCE = 60.0
"""Seconds until candidates that have not compiled and run are given up."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A kernel and the blocks it is given."""

    kernel: str
    dim: int
    blocks: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.kernel} {', '.join(map(str, self.blocks))}"

    def prepared(self, inputs: tuple[Tensor, ...]) -> Callable[[], Tensor]:
        """The call, with this candidate's blocks in the tables."""
        from sora_kernels._triton import attention, attention_int8, blocks

        chosen, described = blocks.Blocks(*self.blocks), "pointers" not in self.kernel
        blocks.EXACT[blocks.HOPPER, 2, self.dim] = blocks.INT8[blocks.HOPPER, self.dim] = chosen
        reads = blocks.copied_in_blocks if described else (lambda *_: False)
        attention.copied_in_blocks = attention_int8.copied_in_blocks = reads
        attention_int8.has_fp8 = lambda: "16-bit" not in self.kernel
        attention_int8.SUMS_APART = "sums" not in self.kernel
        run = attention.run if "exact" in self.kernel else attention_int8.run
        return lambda: run(*inputs, None, None, None, None)


def tensors(tokens: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    """q, k and v as they lie in one projection; keys share a part, as those of trained networks do."""
    torch.manual_seed(0)
    q, k, v = torch.randn(1, tokens, 3, heads, dim, device="cuda", dtype=torch.bfloat16).permute(2, 0, 3, 1, 4)
    return q, k + 2 * torch.randn(1, heads, 1, dim, device="cuda", dtype=torch.bfloat16), v


def candidates(dim: int) -> Iterator[Candidate]:
    """All that are tried for heads of a width."""
    for (kernel, width), them in BLOCKS.items():
        yield from (Candidate(kernel, dim, each) for each in them if width == dim)


def compile_one(candidate: Candidate) -> str:
    """Compile, run on a little, compare with float64: a reason to leave the candidate out, or nothing."""
    try:
        inputs = tensors(700, 2, candidate.dim)
        truth = functional.scaled_dot_product_attention(*(x.double() for x in inputs))
        cosine, _ = likeness(candidate.prepared(inputs)().double(), truth)
    except Exception as failed:  # a compiler's or driver's own kind; told in the table
        return f"{type(failed).__name__}: {str(failed).splitlines()[0] if str(failed) else ''}"[:150]
    least = 0.99999 if "exact" in candidate.kernel else 0.999
    return "" if cosine >= least else f"cosine {cosine:.5f}"


def likeness(found: Tensor, truth: Tensor) -> tuple[float, float]:
    """The cosine between both, and how much of the truth is in what was found: 1 where nothing shrinks."""
    found, truth = found.flatten(), truth.flatten()
    share = (found @ truth) / (truth @ truth)
    return functional.cosine_similarity(found, truth, 0).item(), share.item()


def seconds(run: Callable[[], Tensor], rounds: int) -> float:
    """Median by the GPU's own clock."""
    run()
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def pinned(kernel: SDPBackend, inputs: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    """PyTorch's attention by one of its kernels."""

    def run() -> Tensor:
        with sdpa_kernel(kernel):
            return functional.scaled_dot_product_attention(*inputs)

    return run


def sweep(dim: int, refused: dict[Candidate, str], rounds: int) -> None:
    """Time what compiled and print the table; after each candidate cuDNN is timed once more."""
    _, heads, tokens = SHAPES[dim]
    inputs = tensors(tokens, heads, dim)
    operations = 4 * heads * tokens * tokens * dim
    cudnn, flash = (pinned(each, inputs) for each in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION))
    exact = cudnn().float()
    found: dict[str, tuple[float, float, float]] = {
        "flash": (seconds(flash, rounds), *likeness(flash().float(), exact))
    }
    base = [seconds(cudnn, rounds)]
    for candidate in candidates(dim):
        if refused[candidate]:
            continue
        run = candidate.prepared(inputs)
        try:
            like = likeness(run().float(), exact)
            found[candidate.name] = seconds(run, rounds), *like
        except Exception as failed:
            refused[candidate] = f"{type(failed).__name__}: {str(failed)[:120]}"
        base.append(seconds(cudnn, 1))
    found["cudnn"] = statistics.median(base), 1.0, 1.0
    spread = f"cuDNN {1e3 * min(base):.3f} to {1e3 * max(base):.3f} ms"
    print(f"\n{torch.cuda.get_device_name()}, {heads} heads x {dim}, {tokens} tokens; {spread}")
    print("| queries, keys, warps, stages | ms | TFLOP/s | of cuDNN's speed | cosine with cuDNN | size |")
    print("| --- " * 6 + "|")
    for name, (time_, cosine, size) in sorted(found.items(), key=lambda item: item[1][0]):
        speed = f"{1e3 * time_:.3f} | {operations / time_ / 1e12:.0f} | {found['cudnn'][0] / time_:.3f}"
        print(f"| {name} | {speed} | {cosine:.5f} | {size:.4f} |")
    for candidate in candidates(dim):
        if refused[candidate]:
            print(f"- {candidate.name}: {refused[candidate]}")
    sys.stdout.flush()


def compiled(them: list[Candidate], processes: int) -> dict[Candidate, str]:
    """`compile_one` of each, in a process of its own: what crashes or never ends takes no other with it."""
    begin, refused = time.perf_counter(), {}
    with get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:  # its end ends all processes
        answers = {candidate: pool.apply_async(compile_one, (candidate,)) for candidate in them}
        for candidate, answer in answers.items():
            try:
                refused[candidate] = answer.get(max(0.0, begin + PATIENCE - time.perf_counter()))
            except TimeoutError:
                refused[candidate] = "it crashed or did not end"
    return refused


def main() -> None:
    """Compile in processes of their own, then time one after the other."""
    parser = argparse.ArgumentParser(description="Times attention's candidate blocks on this GPU.")
    parser.add_argument("--dims", nargs="+", type=int, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=12)
    given = parser.parse_args()
    begin = time.perf_counter()
    them = [candidate for dim in given.dims for candidate in candidates(dim)]
    refused = compiled(them, given.processes)
    print(f"{len(them)} candidates compiled and checked in {time.perf_counter() - begin:.1f} s", flush=True)
    for dim in given.dims:
        sweep(dim, refused, given.rounds)
    print(f"{time.perf_counter() - begin:.1f} s in all", flush=True)


if __name__ == "__main__":
    main()
