"""The work on one machine, and what belongs to it: its folder, its sources open, its levels, its encoder of words."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

from torch import Tensor

from sora_cli.engine.backbones import Text
from sora_cli.engine.boards import Given
from sora_cli.engine.canvas import Canvas, Level
from sora_cli.engine.checkpoint import Checkpoint, Point
from sora_cli.engine.clock import Clock
from sora_cli.engine.devices import Precision, choose_device, choose_precision
from sora_cli.engine.footage import Source, mask_latents, open_sources, place
from sora_cli.engine.job import Job, LatentFile
from sora_cli.engine.networks import Autoencoder, check_parts, load_vae
from sora_cli.engine.pipeline import Conditioning, Kept, Stage, encode_texts, encode_words, scheduler_of, stages
from sora_cli.engine.work import Work, drawn_inside
from sora_cli.model.dit import CAMERA
from sora_cli.model.tracing import Pose
from sora_cli.settings import folders


@dataclass(frozen=True, slots=True, eq=False)
class Studio:
    """The work on one machine: its folder and where it stands, device ("cpu", "cuda", "mps") and precision, the
    autoencoder and the sources, open; a picture of the work in progress is kept at `preview`.
    """

    work: Work
    job: Job
    checkpoint: Checkpoint
    point: Point | None
    device: str
    precision: Precision
    vae: Autoencoder
    sources: list[Source]
    clock: Clock
    preview: Path | None
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Tell the user now, and keep it for the result."""
        self.clock.progress.note(text)
        self.notes.append(text)


def open_studio(work: Work, job: Job, clock: Clock, preview: Path | None, opened: ExitStack) -> Studio:
    """Load what all of the work needs; `opened` closes the sources.

    Raises SoraError("device_unavailable"), those of the sources, and WeightsError("bad_weights").
    """
    with clock.stage("load"):
        device = choose_device(work.request.device)
        precision = choose_precision(work.request.dtype, device, work.model)
        check_parts(work.model)
        scheduler_of(work.model, work.flow)  # which refuses one that we don't have
        sources = open_sources(work.request, opened)
        checkpoint = Checkpoint(job.folder)
        vae = load_vae(work.model, device, precision)
        return Studio(work, job, checkpoint, checkpoint.load(), device, precision, vae, sources, clock, preview)


def stages_of(studio: Studio, board: int) -> tuple[Stage, ...]:
    """How the levels of a board are denoised."""
    work = studio.work
    scheduler, strength = scheduler_of(work.model, work.flow), work.strength(board)
    return stages(
        work.canvases[board], work.flow, scheduler, work.request.steps, work.guidance, strength, refined=work.refined
    )


def latent_file(studio: Studio, canvas: Canvas, level: Level, name: str) -> LatentFile:
    """A file in the job's folder for the latents of a canvas at a level."""
    shape = (studio.work.model.specs.vae.channels, *level.latents(canvas.grid))
    return studio.job.latents(name, canvas.latent_frames, shape)


def poses_file(studio: Studio, board: int, figure: int = 0) -> LatentFile:
    """The file for where a figure of a board stands in each latent frame: `Pose.numbers`, as if they were latents."""
    shape = (len(fields(Pose)), 1, 1)
    return studio.job.latents(f"board{board}-poses{figure}", studio.work.canvases[board].latent_frames, shape)


def camera_file(studio: Studio, board: int) -> LatentFile:
    """The file for how the camera of a board sees its scene in each latent frame, as if that were latents; zeros, by
    which nothing is known of it, until it is written.
    """
    return studio.job.latents(f"board{board}-camera", studio.work.canvases[board].latent_frames, (CAMERA, 1, 1))


def place_given(
    studio: Studio,
    stretches: Sequence[Given],
    canvas: Canvas,
    level: Level,
    latents: LatentFile,
    hole: Tensor | None = None,
) -> None:
    """Encode what sources give into the latents of a level, as `place` does."""
    if stretches:
        with studio.clock.stage("encode"):
            place(studio.vae, stretches, studio.sources, canvas, level, latents, hole)


def mask_at(studio: Studio, canvas: Canvas, level: Level) -> Tensor:
    """Where there is to be drawn at a level: 1 in latents, (h, w), that the request's mask touches, 0 in others."""
    return mask_latents(drawn_inside(studio.work.request), canvas, level)


def kept_at(studio: Studio, canvas: Canvas, level: Level, board: int) -> Kept | None:
    """What stays as it is at a level, where a mask says so."""
    request = studio.work.request
    if request.mask is None:
        return None
    own = latent_file(studio, canvas, level, f"kept{level.width}x{level.height}")
    place_given(studio, studio.work.film.boards[board].start, canvas, level, own)
    return Kept(own, mask_at(studio, canvas, level))


def encoder_of(studio: Studio) -> Callable[[str, str], Conditioning]:
    """What encodes a prompt and a negative one."""
    model, cache = studio.work.model, folders()["cache"]
    return partial(encode_words, model, cache=cache, device=studio.device, precision=studio.precision)


def texts_of(studio: Studio, texts: list[str]) -> Text:
    """Texts encoded together, kept in the cache."""
    return encode_texts(studio.work.model, texts, folders()["cache"], studio.device, studio.precision)
