"""Pictures of figures as they move: a loop for each, from a file or from memory."""

import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from torch import Tensor

from sora_weights.errors import WeightsError

RATE = 24  # pictures a second
LEVELS = 4  # sizes that the pictures are kept in, each half of the one before
KEPT = 3  # loops of a file that are kept in memory, as many as there are figures in a picture
OPENINGS = 7  # first pictures that are kept
LONGEST = 240  # pictures of a loop, at most
PACKED = 16  # bytes of a film for each pixel of a picture, at most
AT_ONCE = 8  # pictures that are halved together
CLEAR, SOLID = 6, 249  # of 255: coverage below and above is 0 and 255, whatever compression made of it
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # BT.601, full range (JFIF)


UNREADABLE = (
    KeyError,
    OSError,
    ValueError,
    IndexError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    FFmpegError,
)
"""What zip files and films that are none, or not ours, make their readers raise."""

T = TypeVar("T")


class Artwork(Protocol):
    """The pictures of all figures, `RATE` a second, facing left; colours are multiplied by coverage."""

    def counts(self, figures: Tensor) -> Tensor:
        """How many pictures the loops of some figures (b,) have, (b,)."""

    def pictures(self, level: int, figures: Tensor, numbers: Tensor) -> Tensor:
        """Picture `numbers` (b,) of some figures (b,), `level` times halved: (b, 4, P, P) uint8."""


def picture_at(artwork: Artwork, figures: Tensor, seconds: Tensor, level: int) -> Tensor:
    """Figures (b,) as they are so many `seconds` (b,) into their loops, `level` times halved: (b, 4, P, P) in
    [0, 1].
    """
    numbers = (seconds * RATE + 0.5).floor().long() % artwork.counts(figures)
    return artwork.pictures(level, figures, numbers).float() / 255


class Drawn:
    """Pictures in memory: each level is (n, 4, P, P) uint8, those of figure i from `first[i]` on."""

    def __init__(self, levels: Sequence[Tensor], first: Tensor) -> None:
        self._levels, self._first = levels, first
        self._counts = torch.cat([first[1:], first.new_tensor([len(levels[0])])]) - first

    def counts(self, figures: Tensor) -> Tensor:
        """As `Artwork` says."""
        return self._counts[figures]

    def pictures(self, level: int, figures: Tensor, numbers: Tensor) -> Tensor:
        """As `Artwork` says."""
        return self._levels[min(level, len(self._levels) - 1)][self._first[figures] + numbers]


class Filed:
    """Pictures in a zip file of films, one for each figure, as `name_of` calls them; read when they are wanted.

    Both methods raise WeightsError("bad_weights") for a film that is no such film.
    """

    def __init__(self, path: Path, side: int) -> None:
        self._path, self.side = path, side
        self._counts: dict[int, int] = {}
        self._openings: OrderedDict[int, _Loop] = OrderedDict()  # first pictures, which is all that many are asked for
        self._loops: OrderedDict[int, _Loop] = OrderedDict()

    def counts(self, figures: Tensor) -> Tensor:
        """As `Artwork` says."""
        for figure in set(figures.tolist()) - self._counts.keys():
            self._counts[figure] = self._checked(figure, _length)
        return torch.tensor([self._counts[figure] for figure in figures.tolist()], device=figures.device)

    def pictures(self, level: int, figures: Tensor, numbers: Tensor) -> Tensor:
        """As `Artwork` says."""
        wanted = zip(figures.tolist(), numbers.tolist(), strict=True)
        return torch.stack([self._loop(*key).level(level)[key[1]] for key in wanted]).to(figures.device)

    def _loop(self, figure: int, number: int) -> "_Loop":
        """The pictures of a figure, or the first alone where that is the `number` and no other is at hand."""
        if number == 0 and figure not in self._loops:
            if figure not in self._openings:
                while len(self._openings) >= OPENINGS:
                    self._openings.popitem(last=False)
                self._openings[figure] = _Loop(self._checked(figure, partial(_frames, count=1)))
            return self._openings[figure]
        if figure not in self._loops:
            while len(self._loops) >= KEPT:
                self._loops.popitem(last=False)
            count = int(self.counts(torch.tensor([figure])))
            self._loops[figure] = _Loop(self._checked(figure, partial(_frames, count=count)))
        self._loops.move_to_end(figure)
        return self._loops[figure]

    def _checked(self, figure: int, read: Callable[[bytes, int], T]) -> T:
        """What `read` finds in the film of a figure."""
        name = name_of(figure)
        try:
            with zipfile.ZipFile(self._path) as file, file.open(name) as member:
                return read(member.read(self.side**2 * PACKED), self.side)
        except UNREADABLE as error:
            raise WeightsError("bad_weights", f"{self._path}: {name}: {error}", "get the model again") from error


class _Loop:
    """Pictures of a figure at sizes that are made when they are asked for."""

    def __init__(self, pictures: Tensor) -> None:
        self._levels = [pictures]

    def level(self, level: int) -> Tensor:
        """The pictures, so many times halved: (n, 4, P, P) uint8."""
        while len(self._levels) <= level:
            self._levels.append(_half(self._levels[-1]))
        return self._levels[level]


@contextmanager
def _opened(film: bytes, side: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A film, if it is H.264 of two squares, one below the other. Raises ValueError."""
    with av.open(BytesIO(film), "r", format="matroska") as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        if context is None or context.name != "h264" or (context.width, context.height) != (side, 2 * side):
            raise ValueError(f"it is no H.264 film of {side}x{2 * side}")
        context.thread_count = 1
        yield container, stream


def _length(film: bytes, side: int) -> int:
    """How many pictures are in a film, without decoding them."""
    with _opened(film, side) as (container, stream):
        count = sum(packet.size > 0 for packet in container.demux(stream))
    if not 0 < count <= LONGEST:
        raise ValueError(f"it has {count} pictures, not 1 to {LONGEST}")
    return count


def _frames(film: bytes, side: int, count: int) -> Tensor:
    """The first pictures in a film, (count, 4, side, side) uint8: colours in its upper half, coverage in the lower one.

    Raises ValueError for a film that has fewer.
    """
    pictures, read = torch.empty(count, 4, side, side, dtype=torch.uint8), 0
    with _opened(film, side) as (container, stream):
        for read, frame in enumerate(islice(container.decode(stream), count), 1):
            pictures[read - 1] = _picture(frame, side)
    if read < count:
        raise ValueError(f"it has {read} pictures, not {count}")
    return pictures


def _picture(frame: av.VideoFrame, side: int) -> Tensor:
    if (frame.width, frame.height) != (side, 2 * side) or frame.format.name not in ("yuv444p", "yuvj444p"):
        raise ValueError(f"a picture of {frame.width}x{frame.height} {frame.format.name}")
    planes = torch.from_numpy(frame.to_ndarray(format=frame.format.name)).float()
    cover = planes[0, side:]
    cover = torch.where(cover < CLEAR, 0.0, torch.where(cover > SOLID, 255.0, cover))
    planes[1:] -= 128
    colours = torch.einsum("ij, jhw -> ihw", torch.tensor(YCC).inverse(), planes[:, :side])
    return torch.cat([colours.clamp(min=0).minimum(cover), cover[None]]).round().byte()


def halved(pictures: Tensor) -> list[Tensor]:
    """Pictures (n, 4, P, P) uint8 at `LEVELS` sizes."""
    loop = _Loop(pictures)
    return [loop.level(level) for level in range(LEVELS)]


def _half(pictures: Tensor) -> Tensor:
    return torch.cat([F.avg_pool2d(part.float(), 2).round().byte() for part in torch.split(pictures, AT_ONCE)])


def write_artwork(path: Path, pictures: Tensor, counts: Sequence[int], quality: int = 26) -> Path:
    """Write pictures (n, 4, P, P) uint8, colours multiplied by coverage, `counts` of them for each figure, as films of
    a `quality` (x264's constant rate factor: 0 is lossless).
    """
    with zipfile.ZipFile(path, "w") as file:  # stored: films are packed already
        for figure, loop in enumerate(torch.split(pictures, list(counts))):
            file.writestr(zipfile.ZipInfo(name_of(figure)), _film(loop, quality))  # the same bytes, whatever the date
    return path


def _film(loop: Tensor, quality: int) -> bytes:
    """A film of pictures (n, 4, P, P) uint8 as `_frames` reads it."""
    packed, to_ycc, grey = BytesIO(), torch.tensor(YCC), torch.tensor([0.0, 128.0, 128.0]).view(3, 1, 1)
    with av.open(packed, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = loop.shape[3], 2 * loop.shape[2], "yuv444p"
        stream.options = {"crf": str(quality), "preset": "veryslow", "tune": "psnr"}
        stream.codec_context.thread_count = 1
        for picture in loop.float():
            colours = torch.einsum("ij, jhw -> ihw", to_ycc, picture[:3]) + grey
            planes = torch.cat([colours, F.pad(picture[3:], (0, 0, 0, 0, 0, 2), value=128.0)], 1)
            content = np.ascontiguousarray(planes.round().clamp(0, 255).byte().numpy())
            container.mux(stream.encode(av.VideoFrame.from_ndarray(content, format="yuv444p")))
        container.mux(stream.encode())
    return packed.getvalue()


def name_of(figure: int) -> str:
    """What the film of a figure is called in the file."""
    return f"{figure:03d}.mkv"
