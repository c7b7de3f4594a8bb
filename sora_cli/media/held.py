"""What reading sources and writing a file hold in memory, in bytes: upper bounds of what was measured.

Decoders keep pictures that others refer to, and encoders look ahead. What they keep depends on the format and the size
of a frame, and not on how many frames there are.
"""

from pathlib import Path

from sora_cli.machine import usable_cpus
from sora_cli.media.formats import format_of
from sora_cli.media.probe import Probe

MB = 2**20
COLOURS = 3
KEPT = 20  # frames that a decoder keeps: those that others may refer to, at most 16, and those on their way
SHOWN = 5  # copies of a frame in RGB while it is brought to another size
PICTURE = 20  # bytes a pixel while a picture is read, turned, cut and resized
THREADS = 16  # at most so many write .webm


def read_size(source: Probe) -> int:
    """Bytes while frames of a source are read."""
    pixels = source.coded_width * source.coded_height
    if source.kind != "video":
        return PICTURE * pixels
    from av.video.format import VideoFormat

    bits = VideoFormat(source.pixel_format, 64, 64).padded_bits_per_pixel
    return pixels * (KEPT * bits // 8 + SHOWN * COLOURS)


def written_size(path: Path, pixels: int, like: Probe | None) -> int:
    """Bytes that the encoder of a file holds, for frames of so many pixels; they look as those of the clip `like`."""
    match format_of(path).name:
        case "mp4" | "mov":
            return 102 * pixels + 10 * MB
        case "webm":
            return 138 * pixels + (28 + 4 * min(usable_cpus(), THREADS)) * MB
        case "mkv":
            return lossless_size(_stored(like)) * pixels + 6 * MB
    return 48 * pixels + 4 * MB


def lossless_size(form: str) -> int:
    """Bytes a pixel that FFV1 holds for frames of pixel format `form`: more for each sample the more bits it has."""
    from av.video.format import VideoFormat

    samples = VideoFormat(form, 64, 64).components
    return COLOURS + sum(each.width * each.height * (9 + 9 * each.bits // 4) for each in samples) // 64**2


def _stored(like: Probe | None) -> str:
    """The pixel format of the frames in a lossless file."""
    if like is None:
        return "bgr0"
    from sora_cli.media.editing import lossless_look

    return lossless_look(like)[0].pixel_format
