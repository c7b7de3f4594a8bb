"""Pictures of figures as they move: a loop of keys for each, from a file or from memory."""

import zipfile
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sora_weights.errors import WeightsError

LEVELS = 4  # sizes that the pictures are kept in, each half of the one before
KEPT = 24  # keys of a file that are kept in memory, at all sizes


class Artwork(Protocol):
    """The pictures of all figures, facing left; colours are multiplied by coverage."""

    def keys(self, level: int, figures: Tensor, numbers: Tensor) -> Tensor:
        """Key `numbers` (b,) of some figures (b,), `level` times halved: (b, 4, P, P) uint8."""


class Drawn:
    """Pictures in memory: each level is (n, 4, P, P) uint8, the keys of figure i from `first[i]` on."""

    def __init__(self, levels: Sequence[Tensor], first: Tensor) -> None:
        self._levels, self._first = levels, first

    def keys(self, level: int, figures: Tensor, numbers: Tensor) -> Tensor:
        """As `Artwork` says."""
        return self._levels[min(level, len(self._levels) - 1)][self._first[figures] + numbers]


class Filed:
    """Pictures in a zip file of WebP, one for each key, as `name_of` calls them; read when they are wanted."""

    def __init__(self, path: Path, side: int) -> None:
        self._path, self._side = path, side
        self._read = lru_cache(KEPT)(self._read_now)

    def keys(self, level: int, figures: Tensor, numbers: Tensor) -> Tensor:
        """As `Artwork` says. Raises WeightsError("bad_weights") for a picture that is no such picture."""
        wanted = zip(figures.tolist(), numbers.tolist(), strict=True)
        return torch.stack([self._read(*key)[level] for key in wanted]).to(figures.device)

    def _read_now(self, figure: int, number: int) -> tuple[Tensor, ...]:
        name = name_of(figure, number)
        try:
            with zipfile.ZipFile(self._path) as file, file.open(name) as member:
                picture = Image.open(BytesIO(member.read(self._side**2 * 8)), formats=["WEBP"])
                if picture.size != (self._side, self._side):
                    raise ValueError(f"its size is {picture.width}x{picture.height}, not {self._side}x{self._side}")
                pixels = torch.from_numpy(np.array(picture.convert("RGBA"))).permute(2, 0, 1).float()
        except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
            raise WeightsError("bad_weights", f"{self._path}: {name}: {error}", "get the model again") from error
        pixels[:3] *= pixels[3:] / 255
        return tuple(level[0] for level in halved(pixels.round().byte()[None]))


def halved(pictures: Tensor) -> list[Tensor]:
    """Pictures (n, 4, P, P) uint8 at `LEVELS` sizes."""
    levels = [pictures]
    while len(levels) < LEVELS:
        halves = [F.avg_pool2d(part.float(), 2).round().byte() for part in torch.split(levels[-1], 256)]
        levels.append(torch.cat(halves))
    return levels


def write_artwork(path: Path, pictures: Tensor, counts: Sequence[int], quality: int = 88) -> Path:
    """Write pictures (n, 4, P, P) uint8, colours multiplied by coverage, `counts` of them for each figure."""
    keys = ((figure, number) for figure, count in enumerate(counts) for number in range(count))
    with zipfile.ZipFile(path, "w") as file:  # stored: WebP is packed already
        for key, picture in zip(keys, pictures, strict=True):
            pixels = picture.float()
            pixels[:3] *= 255 / pixels[3:].clamp(min=1)
            packed = BytesIO()
            shown = Image.fromarray(pixels.clamp(0, 255).round().byte().permute(1, 2, 0).contiguous().numpy())
            shown.save(packed, "WEBP", quality=quality)
            file.writestr(zipfile.ZipInfo(name_of(*key)), packed.getvalue())  # always the same bytes, whatever the date
    return path


def name_of(figure: int, number: int) -> str:
    """What a key is called in the file."""
    return f"{figure:03d}/{number:02d}.webp"
