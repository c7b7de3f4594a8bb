"""How near an operator must come: at most twice the error of plain PyTorch in the same precision."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ROUNDINGS = {torch.float32: 12, torch.bfloat16: 2, torch.float16: 2}
"""Errors that don't count, in roundings of the largest value: in float32 sums differ in their order alone."""


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Seeded normal noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def in_double(value: Any) -> Any:
    """Floating tensors, and those in tuples, in float64, everything else as it is."""
    if isinstance(value, tuple):
        return tuple(map(in_double, value))
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def worst(found: Tensor, truth: Tensor) -> float:
    """The largest absolute error; 0 for tensors without values."""
    return (found.double() - truth).abs().max().item() if truth.numel() else 0.0


def check(operator: Callable[..., Tensor], reference: Callable[..., Tensor], *arguments: Any) -> None:
    """Assert that the operator is exact to twice the error of its reference in the arguments' own precision.

    Below a few roundings of the largest value no error counts.
    """
    truth = reference(*(in_double(argument) for argument in arguments))
    found = operator(*arguments)
    plain = reference(*arguments)
    assert (found.shape, found.dtype) == (truth.shape, arguments[0].dtype)
    size = truth.abs().max().item() if truth.numel() else 0.0
    floor = ROUNDINGS[found.dtype] * size * torch.finfo(found.dtype).eps / 2
    assert worst(found, truth) <= max(2 * worst(plain, truth), floor)


def check_gradients(operator: Callable[..., Tensor], *arguments: Any) -> None:
    """Assert that autograd's gradients are the operator's slopes, in float64."""
    assert torch.autograd.gradcheck(operator, tuple(
        in_double(argument).requires_grad_() if isinstance(argument, Tensor) and argument.is_floating_point()
        else argument
        for argument in arguments
    ))  # fmt: skip


def check_gradients_in_float32(
    operator: Callable[..., Tensor], reference: Callable[..., Tensor], *arguments: Any
) -> None:
    """Assert that a backward pass in float32 gives the reference's float64 gradients."""
    found = gradients(operator, *arguments)
    truth = gradients(reference, *(in_double(argument) for argument in arguments))
    for mine, true in zip(found, truth, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=1e-4, atol=1e-4)


def gradients(operator: Callable[..., Tensor], *arguments: Any) -> list[Tensor]:
    """Gradients of a fixed weighting of the output, for every floating argument."""
    leaves = [
        argument.detach().clone().requires_grad_()
        if isinstance(argument, Tensor) and argument.is_floating_point()
        else argument
        for argument in arguments
    ]
    output = operator(*leaves)
    wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
    weighting = randn(*output.shape, seed=9).to(output.dtype)
    return list(torch.autograd.grad((output * weighting).sum(), wanted))
