"""Writing a clip back with new frames: its own come out as they went in, the new ones are made like them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from math import ceil, gcd
from pathlib import Path
from typing import TYPE_CHECKING

from av.video.format import VideoFormat
from av.video.reformatter import VideoReformatter

from sora_cli.errors import SoraError
from sora_cli.media.clip import ClipFrame
from sora_cli.media.colour import (
    FULL,
    effective_range,
    exact_scaling,
    has_alpha,
    swscale_matrix,
    tags_of,
)
from sora_cli.media.formats import OutputPlan, check_limits
from sora_cli.media.planes import Keeping, chroma_grain, keeping, kept, patched, right_angle
from sora_cli.media.probe import Probe
from sora_cli.media.sound import Sound, SoundRecipe, shape_of
from sora_cli.media.sound import recipe_for as sound_recipe_for
from sora_cli.media.staging import Ledger, Staging
from sora_cli.media.video import Look, Recipe, VideoEncoder, look_of, recipe_for
from sora_cli.media.writer import (
    Encoder,
    FrameWriter,
    Size,
    check_output,
    completed,
    fitting,
    notes_on,
    picture_encoder,
)

if TYPE_CHECKING:
    import numpy as np
    from av import VideoFrame

_FINEST = 1_000_000  # ticks a second; beyond it, only the clip's own times are exact
_FINE = 90_000
_PICTURE_FORMATS = {"1": "gray", "l": "gray", "i;16": "gray16le", "i;16l": "gray16le", "i;16b": "gray16le"}


class ClipWriter(FrameWriter):
    """Takes the frames of one output in order: the clip's own by `copy`, new ones by `write`, new ones in the place of
    its own by `replace`, and both in one by `patch`.

    The first is shown at 0. A new frame comes 1/fps after the one before; frames of a clip of variable rate that
    follow each other keep their distance, and so do those in their place; those of a constant rate are 1/fps apart.
    `output` and `notes` as `FrameWriter` has them.
    """

    def __init__(
        self,
        encoder: Encoder,
        plan: OutputPlan,
        size: Size,
        fps: Fraction,
        notes: list[str],
        *,
        keeps_times: bool,
    ) -> None:
        super().__init__(encoder, plan, size, fps, notes)
        self._keeps_times = keeps_times
        self._reformatter = VideoReformatter()
        self._at = Fraction(0)
        self._copied: Fraction | None = None  # when the frame before was shown in its clip

    @property
    def end(self) -> Fraction:
        """When the frames so far are over, in seconds: at a constant rate the next one begins then."""
        return self._end

    def copy(self, frame: ClipFrame, at: Fraction | None = None) -> None:
        """Encodes a frame of a clip, shown at `at` seconds or as the class says.

        In .mkv its planes come out bit for bit, upright; a frame that isn't in the output's pixel format is
        converted once, with a note. Raises SoraError internal for another size, a time that isn't after the last
        one, or one frame too many, and OSError from the disk.
        """
        self._check(frame.rgb)
        at = self._time_of(frame.time) if at is None else at
        if self._count and at <= self._at:
            raise SoraError("internal", f"{self._plan.path}: a frame at {at} s comes after one at {self._at} s")
        picture = self._kept(frame.native) if frame.native is not None else None
        if picture is None:
            self._encoder.write(frame.rgb, self._take(at))
        else:
            assert isinstance(self._encoder, VideoEncoder)
            self._encoder.put(picture, self._take(at))
        self._copied = frame.time

    def replace(self, rgb: "np.ndarray", time: Fraction) -> None:
        """Encodes a new frame in the place of that which is shown at `time` in its clip. Raises what `copy` raises."""
        self._check(rgb)
        self._encoder.write(rgb, self._take(self._time_of(time)))
        self._copied = time

    def patch(self, frame: ClipFrame, rgb: "np.ndarray", inside: "np.ndarray", at: Fraction | None = None) -> None:
        """Encodes a frame of a clip with the pixels of `rgb` in it where `inside`, bool (H, W), is true.

        Elsewhere it comes out as by `copy`, and when that says. Raises what `copy` raises.
        """
        import numpy as np

        self._check(rgb)
        picture = self._kept(frame.native) if frame.native is not None else None
        at = self._time_of(frame.time) if at is None else at
        if picture is None or not self._plan.format.lossless:
            self._encoder.write(np.where(inside[..., None], rgb, frame.rgb), self._take(at))
        else:
            assert isinstance(self._encoder, VideoEncoder)
            self._encoder.put(patched(picture, self._encoder.converted(rgb), inside), self._take(at))
        self._copied = frame.time

    def _take(self, at: Fraction) -> Fraction:
        self._at, self._copied = super()._take(at), None
        return at

    def _time_of(self, time: Fraction) -> Fraction:
        """When a frame is shown here that is shown at `time` in its clip."""
        before = self._copied
        if self._keeps_times and before is not None and before < time:
            return self._at + time - before
        return self._end

    def _kept(self, native: "VideoFrame") -> "VideoFrame | None":
        """The frame as it goes into the file; None where that is to be made from its RGB."""
        if not isinstance(self._encoder, VideoEncoder):
            return None
        look = self._encoder.look
        plan = keeping(native.format.name, right_angle(native), native.width, native.height)
        if self._plan.format.lossless:
            if plan.stored == look.pixel_format:
                return kept(native, plan, self._reformatter)
            self._note(f"frames in {native.format.name} are converted to {look.pixel_format}")
            return None
        if has_alpha(native.format) or native.format.is_rgb:
            return None
        return _converted(kept(native, plan, self._reformatter), look, self._reformatter)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@contextmanager
def open_clip_writer(
    path: Path,
    *,
    like: Probe,
    width: int,
    height: int,
    fps: Fraction,
    frames: int,
    sounds: Sequence[Sound],
    metadata: str | None,
    force: bool,
    make_folder: bool = False,
    ledger: Ledger | None = None,
) -> Iterator[ClipWriter]:
    """A writer for exactly `frames` frames of `width` x `height` that look as those of the clip `like`.

    That is: its pixel format in .mkv, its colour tags, pixel aspect and interlacing, upright; `sounds` beside
    them, where the format has sound. GIF and WebP play for ever. Files and errors as with `open_writer`; raises
    SoraError bad_input too, for a sound whose file can't be read.
    """
    plan = check_output(path, frames=frames, force=force, make_folder=make_folder)
    check_limits(plan.format, width, height, fps)
    metadata, notes = fitting(metadata, plan)
    notes = notes_on(plan, fps) + notes + _losses(plan, like, Size(width, height))
    sound, sound_notes = _sound(plan, sounds)
    size = Size(width, height)

    def begin(staging: Staging) -> ClipWriter:
        encoder, encoder_notes = _encoder(plan, staging, size, fps, metadata, like, sound)
        everything = notes + sound_notes + encoder_notes
        return ClipWriter(encoder, plan, size, fps, everything, keeps_times=like.variable_rate)

    with completed(plan, begin, force=force, ledger=ledger) as writer:
        yield writer


def _encoder(
    plan: OutputPlan,
    staging: Staging,
    size: Size,
    fps: Fraction,
    metadata: str | None,
    like: Probe,
    sound: tuple[SoundRecipe, Sequence[Sound]] | None,
) -> tuple[Encoder, list[str]]:
    if (encoder := picture_encoder(plan, staging, size, fps, metadata)) is not None:
        return encoder, []
    recipe, notes = recipe_for(plan.format.name, *size)
    look, look_notes = lossless_look(like) if plan.format.lossless else (_lossy_look(like, recipe), [])
    part = staging.part(plan.path)
    tick = _tick(like, fps)
    encoder = VideoEncoder(part, recipe, look, size=size, fps=fps, tick=tick, metadata=metadata, sound=sound)
    return encoder, notes + look_notes


def _sound(plan: OutputPlan, sounds: Sequence[Sound]) -> tuple[tuple[SoundRecipe, Sequence[Sound]] | None, list[str]]:
    """How the sound is encoded, None where there is none to be heard; and notes."""
    shape, notes = shape_of(sounds)
    if shape is None:
        return None, []
    if not plan.format.audio:
        return None, [f".{plan.format.name} holds no sound: left out"]
    recipe, recipe_notes = sound_recipe_for(plan.format.name, shape)
    return (recipe, sounds), notes + recipe_notes


def lossless_look(like: Probe) -> tuple[Look, list[str]]:
    """The clip's own pixel format, or the nearest that FFV1 has, and what the user must know about it."""
    name = _stored_name(like)
    turn = like.rotation if like.kind == "video" and like.rotation % 90 == 0 else 0
    plan = keeping(name, turn, like.coded_width, like.coded_height)
    form = VideoFormat(name)
    tags = tags_of(like.colour)
    if VideoFormat(plan.stored).is_rgb and like.kind != "video":
        tags = look_of(recipe_for("mkv", like.width, like.height)[0]).tags
    elif name.startswith("yuvj"):
        tags = replace(tags, range=FULL)
    look = Look(
        plan.stored,
        tags,
        swscale_matrix(tags.matrix, like.coded_width, like.coded_height),
        effective_range(form, tags.range),
        like.pixel_aspect,
        None if turn else like.field_order,
    )
    return look, _keeping_notes(like, plan)


def _keeping_notes(like: Probe, plan: Keeping) -> list[str]:
    notes = []
    if not plan.exact:
        notes.append(f"{like.pixel_format} can't be kept bit for bit in .mkv: converted to {plan.stored}")
    elif plan.full_chroma:
        notes.append(f"turned, {like.pixel_format} has its colours between pixels: kept as {plan.stored}, none changed")
    if like.interlaced and plan.rotation:
        notes.append("interlaced frames are turned: they are no longer marked as interlaced")
    return notes


def _lossy_look(like: Probe, recipe: Recipe) -> Look:
    """The recipe's pixel format with the clip's matrix and range, so that they aren't converted twice."""
    form = VideoFormat(_stored_name(like))
    if form.is_rgb:
        return replace(look_of(recipe), pixel_aspect=like.pixel_aspect)
    tags = tags_of(like.colour)
    value_range = effective_range(form, tags.range)
    if value_range == FULL:
        tags = replace(tags, range=FULL)
    matrix = swscale_matrix(tags.matrix, like.coded_width, like.coded_height)
    return Look(recipe.pixel_format, tags, matrix, value_range, like.pixel_aspect)


def _stored_name(like: Probe) -> str:
    """The pixel format in which `Clip` hands the clip's frames over."""
    if like.kind == "video":
        return like.pixel_format
    return _PICTURE_FORMATS.get(like.pixel_format, "rgba" if like.has_alpha else "rgb24")


def _losses(plan: OutputPlan, like: Probe, size: Size) -> list[str]:
    """What the output's format can't hold of the clip."""
    name, notes = plan.format.name, []
    if plan.format.lossless:
        return []
    if like.has_alpha:
        notes.append(f"transparency can't be kept in .{name}: shown over black; .mkv keeps it")
    if like.bit_depth > 8:
        notes.append(f"{like.bit_depth} bits a channel become 8 in .{name}; .mkv keeps them")
    if like.kind == "video" and plan.format.audio:
        shared = chroma_grain(recipe_for(name, *size)[0].pixel_format)
        if any(own < kept for own, kept in zip(chroma_grain(_stored_name(like)), shared, strict=True)):
            notes.append(f"colours of {like.pixel_format} become coarser in .{name}; .mkv keeps them")
    if like.interlaced:
        notes.append(f"interlaced frames stay woven in .{name}, but are not marked as interlaced")
    if like.pixel_aspect != 1 and not plan.format.audio:
        notes.append(f"pixels of {like.pixel_aspect} become square in .{name}")
    return notes


def _tick(like: Probe, fps: Fraction) -> Fraction:
    """A clock, in seconds, on which the clip's variable times and steps of 1/fps both fall exactly.

    Where that would be finer than a microsecond, the clip's times are exact and new ones are rounded.
    """
    step = 1 / fps
    if not like.variable_rate or like.time_base is None:
        return step
    unit = like.time_base
    common = Fraction(
        gcd(unit.numerator * step.denominator, step.numerator * unit.denominator), unit.denominator * step.denominator
    )
    return common if 1 / common <= _FINEST else unit / ceil(unit * _FINE)


def _converted(frame: "VideoFrame", look: Look, reformatter: VideoReformatter) -> "VideoFrame":
    """An upright frame in the pixel format of `look`; nothing happens where it is in it already."""
    return reformatter.reformat(
        frame,
        format=look.pixel_format,
        src_colorspace=swscale_matrix(frame.colorspace, frame.width, frame.height),
        dst_colorspace=look.matrix,
        src_color_range=effective_range(frame.format, frame.color_range),
        dst_color_range=look.value_range,
        interpolation=exact_scaling(),
    )
