"""The families of models, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from sora_weights.families import cogvideox, diorama, wan
from sora_weights.spec import Family

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {family.name: family for family in (diorama.FAMILY, wan.FAMILY, cogvideox.FAMILY)}
)
