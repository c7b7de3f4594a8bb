"""Rules lead every key of a file to the network and back."""

from collections.abc import Callable
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sora_weights.errors import WeightsError
from sora_weights.keymap import SAME_KEYS, KeyMap, Rule, drop, fuse, rename, split

BLOCK = KeyMap(
    (
        rename("patch_embed.proj.{kind}", "patchify.{kind}"),
        rename("patch_embed.kernel", "kernel", "out c p q -> out (c p q)"),
        split("blocks.{i}.qkv.{kind}", tuple(f"blocks.{{i}}.attn.{x}.{{kind}}" for x in "qkv")),
        split(
            "blocks.{i}.by_head.weight",
            tuple(f"blocks.{{i}}.heads.{x}" for x in "qkv"),
            "(heads three d) ... -> (three heads d) ...",
        ),
        split("blocks.{i}.wide", ("blocks.{i}.narrow", "blocks.{i}.mlp"), shares=(1, 4)),
        fuse(("blocks.{i}.gate", "blocks.{i}.up"), "blocks.{i}.gate_up"),
        drop("pos_embed.{rest...}", "positions are computed"),
    ),
    sizes=(("heads", 2), ("three", 3), ("c", 3), ("p", 2), ("q", 2)),
)


def file_tensors(blocks: int, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"patch_embed.proj.bias": (4,), "patch_embed.kernel": (4, 3, 2, 2)}
    for i in range(blocks):
        shapes |= {f"blocks.{i}.qkv.weight": (12, 4), f"blocks.{i}.qkv.bias": (12,)}
        shapes |= {f"blocks.{i}.by_head.weight": (12, 5), f"blocks.{i}.wide": (10, 2)}
        shapes |= {f"blocks.{i}.gate": (6, 3), f"blocks.{i}.up": (6, 3)}
    return {key: torch.randn(shape, generator=draw) for key, shape in shapes.items()}


@given(st.integers(0, 12), st.integers(0, 99), st.randoms())
def test_what_was_read_can_be_written_back(blocks: int, seed: int, shuffle: Random) -> None:
    written = file_tensors(blocks, seed)
    keys = list(written)
    shuffle.shuffle(keys)
    back = BLOCK.inverse().apply(BLOCK.apply({key: written[key] for key in keys}))
    assert back.keys() == written.keys()
    assert all(torch.equal(back[key], written[key]) for key in written)


def test_fused_rows_go_where_they_belong() -> None:
    written = file_tensors(1)
    read = BLOCK.apply(written)
    fused = written["blocks.0.by_head.weight"].view(2, 3, 2, 5)
    assert torch.equal(read["blocks.0.heads.k"], fused[:, 1].reshape(4, 5))
    assert torch.equal(read["blocks.0.attn.v.bias"], written["blocks.0.qkv.bias"][8:])
    assert read["blocks.0.narrow"].shape == (2, 2)
    assert read["blocks.0.mlp"].shape == (8, 2)
    assert torch.equal(read["blocks.0.gate_up"][6:], written["blocks.0.up"])


def test_dropped_keys_are_gone() -> None:
    assert BLOCK.apply({"pos_embed.a.b": torch.ones(1)}) == {}


def test_same_keys_leads_every_key_to_itself() -> None:
    keys = ["weight", "a.b.0.c", "odd key"]
    assert [step.targets[0] for step in SAME_KEYS.plan(keys)] == keys


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (["blocks.0.qkv.weight.extra"], "key blocks.0.qkv.weight.extra is not one"),
        (["blocks..qkv.weight"], "key blocks..qkv.weight is not one"),
        (["prefix.blocks.0.wide"], "key prefix.blocks.0.wide is not one"),
        (["blocks.0.wide\n"], "is not one"),
        ([""], "is not one"),
        (["blocks.3.up"], "key blocks.3.gate is missing"),
        (["blocks.3.up", "blocks.4.gate"], "is missing"),
    ],
)
def test_key_without_its_rule_or_companion_is_named(keys: list[str], problem: str) -> None:
    with pytest.raises(WeightsError, match=problem) as refused:
        BLOCK.plan(keys)
    assert refused.value.code == "bad_weights"


def test_key_that_fits_two_rules_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"key a\.b fits more than one rule"):
        KeyMap((rename("a.{x}", "b.{x}"), rename("{x}.b", "c.{x}"))).plan(["a.b"])


def test_hole_that_comes_twice_holds_the_same_both_times() -> None:
    twice = KeyMap((rename("{i}.copy.{i}", "{i}"),))
    assert twice.plan(["7.copy.7"])[0].targets == ("7",)
    with pytest.raises(WeightsError):
        twice.plan(["7.copy.8"])


def test_source_of_names_the_file_key_of_a_weight() -> None:
    assert BLOCK.source_of("blocks.5.attn.k.bias") == "blocks.5.qkv.bias"
    assert BLOCK.source_of("blocks.5.gate_up") == "blocks.5.gate"
    assert BLOCK.source_of("elsewhere") == "elsewhere"


@pytest.mark.parametrize(
    "broken",
    [
        lambda: rename("a.{i}", "b"),
        lambda: rename("a", "b.{i}"),
        lambda: drop("a", ""),
        lambda: Rule(("a", "b"), ("c", "d")),
        lambda: split("a", ("b", "c"), shares=(1, 2, 3)),
    ],
)
def test_rule_that_can_not_be_turned_around_is_refused_when_written(broken: Callable[[], Rule]) -> None:
    with pytest.raises(ValueError, match=r"rule|reason|holes|share"):
        broken()


def test_rows_that_can_not_be_shared_are_refused() -> None:
    with pytest.raises(ValueError, match="7 rows can't be shared"):
        BLOCK.apply({"blocks.0.wide": torch.ones(7, 1)})
