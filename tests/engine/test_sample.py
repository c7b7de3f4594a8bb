"""The loop: what it reports, where it starts, and what noise it draws."""

import torch
from torch import Tensor

from sora_cli.engine.sample import Step, common_noise, mixed_noise, normal_draws, sample
from sora_cli.engine.schedule import Row, flow_schedule, truncate
from sora_cli.engine.solvers import ddim, dpmpp_2m

X = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
ROWS = flow_schedule(4, shift=2.0)


def halve(x: Tensor, row: Row) -> Tensor:
    return x / 2


def no_draw() -> Tensor:
    raise AssertionError("ddim drew noise")


def test_every_completed_step_is_reported_with_all_that_resuming_needs() -> None:
    steps: list[Step] = []
    ended = sample(halve, ROWS, X, dpmpp_2m, no_draw, steps.append)
    assert [step.done for step in steps] == [1, 2, 3, 4]
    assert steps[-1].x is ended
    for step in steps:
        resumed = sample(halve, ROWS, step.x, dpmpp_2m, no_draw, lambda _: None, step.state, step.done)
        assert torch.equal(resumed, ended)


def test_each_row_is_evaluated_once_in_order() -> None:
    seen: list[Row] = []

    def denoise(x: Tensor, row: Row) -> Tensor:
        seen.append(row)
        return x

    sample(denoise, ROWS, X, ddim, no_draw, lambda _: None)
    assert tuple(seen) == ROWS


def test_the_latents_given_are_left_alone() -> None:
    before = X.clone()
    sample(halve, ROWS, X, ddim, no_draw, lambda _: None)
    assert torch.equal(X, before)


def test_a_run_that_is_already_done_returns_its_latents() -> None:
    assert sample(halve, ROWS, X, ddim, no_draw, lambda _: None, start=len(ROWS)) is X


def test_a_truncated_schedule_runs_the_steps_that_it_kept() -> None:
    done: list[int] = []
    sample(halve, truncate(ROWS, 0.5), X, ddim, no_draw, lambda step: done.append(step.done))
    assert done == [1, 2]


def test_draws_are_shaped_like_the_latents_and_follow_the_generator() -> None:
    draw = normal_draws(torch.Generator().manual_seed(3), X)
    reference = torch.Generator().manual_seed(3)
    for _ in range(2):
        assert torch.equal(draw(), torch.randn(X.shape, generator=reference))


def test_draws_in_another_layout_and_dtype_are_those_of_the_reference() -> None:
    draw = normal_draws(torch.Generator().manual_seed(3), X, "b t c h w", torch.bfloat16)
    expected = torch.randn(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.bfloat16)
    drawn = draw()
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn, expected.transpose(1, 2).float())


def test_mixed_noise_is_standard_normal_and_shares_what_it_says():
    noise = mixed_noise((2, 3, 40, 16, 16), 0.5, torch.Generator().manual_seed(0))
    assert abs(float(noise.std()) - 1) < 0.02
    first, last = noise[:, :, 0].flatten(), noise[:, :, -1].flatten()
    assert abs(float((first * last).mean()) - 0.5) < 0.06


def test_noise_of_two_windows_shares_the_same_part():
    generator = torch.Generator().manual_seed(1)
    common = common_noise((1, 4, 9, 12, 12), generator)
    one, other = (mixed_noise((1, 4, 3, 12, 12), 0.9, generator, common) for _ in range(2))
    assert float((one[:, :, 0] * other[:, :, 0]).mean()) > 0.8


def test_without_a_shared_part_the_noise_is_what_the_seed_gives():
    shape = (1, 2, 3, 4, 4)
    plain = torch.randn(*shape, generator=torch.Generator().manual_seed(5))
    assert torch.equal(mixed_noise(shape, 0.0, torch.Generator().manual_seed(5)), plain)
