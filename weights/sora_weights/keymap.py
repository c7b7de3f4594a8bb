"""How the keys of a file become the names of a network: rules of whole-key templates.

A template is a key with named holes: `blocks.{i}.attn1.to_q.{kind}` -> `blocks.{i}.attn.q.{kind}`. A hole
is one dotted component; `{name...}` is one or more. Every key of a file fits exactly one rule; what a network
does not want is dropped by name. Rules can be turned around, so what was read can be written back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sora_weights.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_HOLE = re.compile(r"\{([a-z_]+)(\.\.\.)?\}")


@dataclass(frozen=True, slots=True)
class Rule:
    """Sources joined along the first axis, rearranged by `layout`, split along the first axis into targets.

    `layout` is an einops pattern or empty. `shares` are the relative sizes of whichever side has several
    keys; equal where none are given. Without targets the sources are dropped, and `why` says why. Templates
    of both sides have the same holes. Raises ValueError for a rule that breaks this.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    layout: str = ""
    shares: tuple[int, ...] = ()
    why: str = ""

    def __post_init__(self) -> None:
        if len(self.sources) != 1 and len(self.targets) != 1:
            raise ValueError(f"a rule has one key on one side at least: {self}")
        if not self.targets and not self.why:
            raise ValueError(f"a dropped key needs a reason: {self}")
        if len({_holes(template) for template in self.sources + self.targets}) != 1:
            raise ValueError(f"both sides of a rule have the same holes: {self}")
        if self.shares and len(self.shares) != max(len(self.sources), len(self.targets)):
            raise ValueError(f"one share for each of several keys: {self}")

    def inverse(self) -> Rule:
        """The rule that leads back. Raises ValueError for a dropped key."""
        before, _, after = self.layout.partition("->")
        layout = f"{after.strip()} -> {before.strip()}" if self.layout else ""
        return Rule(self.targets, self.sources, layout, self.shares)

    def apply(self, tensors: Sequence[Tensor], sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
        """The targets' tensors from the sources'; `sizes` are axes that the layout names.

        Raises ValueError, or einops' own error, for shapes that don't allow it.
        """
        import torch
        from einops import rearrange

        if not self.targets:
            return ()
        whole = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
        if self.layout:
            named = set(re.findall(r"[a-z_]+", self.layout))
            whole = rearrange(whole, self.layout, **{axis: size for axis, size in sizes.items() if axis in named})
        return self._split(whole)

    def _split(self, whole: Tensor) -> tuple[Tensor, ...]:
        import torch

        if len(self.targets) == 1:
            return (whole,)
        shares = self.shares or (1,) * len(self.targets)
        unit, left = divmod(whole.shape[0], sum(shares))
        if left:
            raise ValueError(f"{whole.shape[0]} rows can't be shared as {shares}")
        return tuple(torch.split(whole, [share * unit for share in shares]))


def rename(source: str, target: str, layout: str = "") -> Rule:
    """One key becomes another, rearranged by an einops pattern where one is given."""
    return Rule((source,), (target,), layout)


def split(source: str, targets: tuple[str, ...], layout: str = "", shares: tuple[int, ...] = ()) -> Rule:
    """One key, rearranged, becomes several along its first axis: a fused q, k and v."""
    return Rule((source,), targets, layout, shares)


def fuse(sources: tuple[str, ...], target: str, layout: str = "", shares: tuple[int, ...] = ()) -> Rule:
    """Several keys become one along the first axis, then rearranged. `shares` let it be turned around."""
    return Rule(sources, (target,), layout, shares)


def drop(source: str, why: str) -> Rule:
    """A key that the network has no use for."""
    return Rule((source,), (), why=why)


@dataclass(frozen=True, slots=True)
class Step:
    """A rule at work on actual keys."""

    rule: Rule
    sources: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyMap:
    """The rules of a network's files; `sizes` are the axes that their layouts name, such as heads."""

    rules: tuple[Rule, ...]
    sizes: tuple[tuple[str, int], ...] = ()

    def plan(self, keys: Iterable[str]) -> tuple[Step, ...]:
        """The steps that turn a file's keys into the network's, in the order of the keys.

        Raises WeightsError("bad_weights") naming a key that fits no rule, or two, or lacks its companions.
        """
        found: dict[tuple[int, tuple[tuple[str, str], ...]], dict[int, str]] = {}
        for key in keys:
            rule, place, holes = self._only_fit(key)
            found.setdefault((rule, holes), {})[place] = key
        return tuple(self._step(self.rules[rule], dict(holes), places) for (rule, holes), places in found.items())

    def apply(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The network's tensors from a file's. Raises what `plan` and `Rule.apply` raise."""
        sizes = dict(self.sizes)
        return {
            name: tensor
            for step in self.plan(tensors)
            for name, tensor in zip(
                step.targets, step.rule.apply([tensors[key] for key in step.sources], sizes), strict=True
            )
        }

    def inverse(self) -> KeyMap:
        """The map from the network's names back to the file's keys; dropped keys stay dropped."""
        return KeyMap(tuple(rule.inverse() for rule in self.rules if rule.targets), self.sizes)

    def source_of(self, name: str) -> str:
        """The key, or the first of the keys, under which a file would hold the network's `name`."""
        for rule in self.rules:
            for template in rule.targets:
                if match := _pattern(template).fullmatch(name):
                    return _filled(rule.sources[0], match.groupdict())
        return name

    def _only_fit(self, key: str) -> tuple[int, int, tuple[tuple[str, str], ...]]:
        fits = [
            (index, place, tuple(sorted(match.groupdict().items())))
            for index, rule in enumerate(self.rules)
            for place, template in enumerate(rule.sources)
            if (match := _pattern(template).fullmatch(key))
        ]
        if len(fits) == 1:
            return fits[0]
        problem = "is not one that this model has" if not fits else "fits more than one rule"
        raise WeightsError("bad_weights", f"key {key[:200]} {problem}", "use the files of a model that sora knows")

    def _step(self, rule: Rule, holes: Mapping[str, str], places: Mapping[int, str]) -> Step:
        sources = tuple(_filled(template, holes) for template in rule.sources)
        for place, key in enumerate(sources):
            if place not in places:
                raise WeightsError("bad_weights", f"key {key[:200]} is missing", "use the model's complete files")
        return Step(rule, sources, tuple(_filled(template, holes) for template in rule.targets))


@lru_cache(maxsize=4096)
def _pattern(template: str) -> re.Pattern[str]:
    """A regular expression for a template; a hole that comes twice holds the same both times."""
    parts, end, seen = [], 0, set()
    for hole in _HOLE.finditer(template):
        name, many = hole.groups()
        parts.append(re.escape(template[end : hole.start()]))
        fresh = rf"(?P<{name}>.+)" if many else rf"(?P<{name}>[^.]+)"
        parts.append(rf"(?P={name})" if name in seen else fresh)
        seen.add(name)
        end = hole.end()
    return re.compile("".join(parts) + re.escape(template[end:]), re.DOTALL)


def _filled(template: str, holes: Mapping[str, str]) -> str:
    return _HOLE.sub(lambda hole: holes[hole.group(1)], template)


def _holes(template: str) -> frozenset[str]:
    return frozenset(hole.group(1) for hole in _HOLE.finditer(template))


SAME_KEYS = KeyMap((rename("{key...}", "{key...}"),))
"""For files that were written from the network itself."""
