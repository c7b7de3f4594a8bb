"""The loops of training: time, learning rate, logs, checkpoints."""

import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoint
import torch
import torch.nn.functional as F
from course_training import Lessons, course_loss
from dit_training import Captions, denoising_loss
from examples import Batch, Examples, Mixture, Studio, latent_spread
from feed import Feed
from memory import Covering, Pointing, animate, fill_memory, write_figures
from retouch_training import RAGS, VAGUEST, Retouching
from team import Team
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from vae_training import (
    MOST,
    Camera,
    Crops,
    decibels,
    decoder_loss,
    drawn_latents,
    fit_components,
    load_vae,
    mixed_precision,
    random_crops,
)
from world import Sprites

from sora_cli.model.course import Course
from sora_cli.model.dit import DiT
from sora_cli.model.retouch import Retouch
from sora_cli.model.vae.patch import PatchVAE
from sora_weights.spec import DiTSpec, PatchVAESpec, RetouchSpec

REPORT_SECONDS = 20
KEEP_SECONDS = 150
WARM_STEPS = 200
LONGEST_AVERAGE = 0.999
POINTING = 0.05  # how much the lesson of where to look weighs beside the loss of what is drawn
COVERING = 0.2  # the same for the lesson of what is figure


@dataclass(frozen=True, slots=True)
class Timetable:
    """How long to train, and the learning rate: level, then falling linearly to zero in the last `settle` share."""

    rate: float
    minutes: float
    settle: float

    def rate_at(self, gone: float, steps: int) -> float:
        """The learning rate when the share `gone` of the time is over and `steps` steps were ever made."""
        return self.rate * min(1.0, (steps + 1) / WARM_STEPS) * min(1.0, (1 - gone) / self.settle) + 1e-7


class Clock:
    """Ends when the minutes are over or a SIGTERM came; says when to report and when to keep a checkpoint."""

    def __init__(self, minutes: float) -> None:
        self.began = time.monotonic()
        self._length, self._stopped = 60 * minutes, False
        self._due = {"report": self.began + REPORT_SECONDS, "keep": self.began + KEEP_SECONDS}
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: Any) -> None:
        self._stopped = True

    @property
    def gone(self) -> float:
        """The share of the time that is over."""
        return (time.monotonic() - self.began) / self._length

    @property
    def running(self) -> bool:
        """Whether to go on."""
        return self.gone < 1 and not self._stopped

    def due(self, what: str, every: float) -> bool:
        """Whether it is time, `every` so many seconds."""
        if time.monotonic() < self._due[what]:
            return False
        self._due[what] = time.monotonic() + every
        return True


def log(run: Path, stage: str, line: str) -> None:
    """Print a report and keep it."""
    stamped = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"
    print(stamped, flush=True)
    with open(run / f"{stage}.log", "a") as file:
        file.write(stamped + "\n")


def make_step(optimiser: torch.optim.Optimizer, net: nn.Module, loss: Tensor, rate: float) -> None:
    """One step of the optimiser on a loss, gradients clipped to norm 1."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimiser.step()


def train_autoencoder(run: Path, sprites: Sprites, timetable: Timetable, device: str, count: int, workers: int) -> None:
    """Train the autoencoder in `run`, from its components on or from its last checkpoint, on `count` crops a step."""
    run.mkdir(parents=True, exist_ok=True)
    kept, camera = run / "vae.safetensors", Camera(sprites)
    if kept.exists():
        net, steps = load_vae(kept), int(checkpoint.load(kept)[1]["steps"])
    else:
        net, steps = PatchVAE(PatchVAESpec()), 0
        dice = random.Random(1)
        fit_components(net, (camera(random_crops(dice, 1, 64, 13))[0].cpu() for _ in range(3000)))
    net.to(device).train()
    test = camera(random_crops(random.Random(10**6), 32, 96, 13))
    optimiser = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    feed, clock = Feed(Crops(1000 + steps, count), camera, device, workers), Clock(timetable.minutes)

    def report() -> None:
        whole, first = decibels(net, test), decibels(net, test[:, :, :1])
        log(run, "vae", f"step {steps}: {whole:.2f} dB, first frames {first:.2f} dB")
        checkpoint.save(kept, {f"vae.{k}": v for k, v in net.state_dict().items()}, {"steps": steps})

    report()
    while clock.running:
        with mixed_precision(device):
            loss = decoder_loss(net, next(feed))
        make_step(optimiser, net, loss, timetable.rate_at(clock.gone, steps))
        steps += 1
        if clock.due("report", REPORT_SECONDS):
            report()
    report()


@dataclass(frozen=True, slots=True, eq=False)
class Drawings:
    """Endless videos (b, 3, T, h, w) and what the denoiser of a run makes of them; on the CPU."""

    net: DiT
    captions: Captions
    feed: Feed
    dice: torch.Generator

    @classmethod
    def of(cls, run: Path, studio: Studio, captions: Captions, mixture: Mixture, seed: int, workers: int) -> "Drawings":
        """Those of the average network in `run`."""
        net = DiT(DiTSpec())
        net.load_state_dict(checkpoint.part(checkpoint.load(run / "dit.safetensors")[0], "average"))
        animate(net.eval().requires_grad_(False), studio.sprites)
        feed = Feed(Examples(lambda _: mixture, seed, 300), studio.filmed, "cpu", workers)
        return cls(net, captions, feed, torch.Generator().manual_seed(seed))

    def draw(self, vae: PatchVAE, most: float, beside: int | None = None) -> tuple[Tensor, Batch, Tensor]:
        """A video, what is known of it, and latents of it as `drawn_latents` has them."""
        video, batch = next(self.feed)
        features, seen = self.captions.of(batch.silent)
        latents = drawn_latents(vae, self.net, video, batch, features, seen, self.dice, most, beside)
        return video, batch, latents


def _finish(
    net: nn.Module, loss_of: Callable[[], Tensor], report: Callable[[int, float], None], timetable: Timetable
) -> None:
    """Train what comes after the denoiser; `report` gets the steps made and the mean loss since it was last called."""
    optimiser = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    clock, losses, steps = Clock(timetable.minutes), list[Tensor](), 0
    while clock.running:
        loss = loss_of()
        make_step(optimiser, net, loss, timetable.rate_at(clock.gone, steps))
        losses.append(loss.detach())
        steps += 1
        if clock.due("report", REPORT_SECONDS):
            report(steps, torch.stack(losses).mean().item())
            losses.clear()
    if losses:
        report(steps, torch.stack(losses).mean().item())


def polish_decoder(run: Path, studio: Studio, captions: Captions, timetable: Timetable, workers: int) -> None:
    """Train the decoder in `run` on what the denoiser there makes of noisy latents, so that it mends its errors; on the
    CPU.
    """
    kept, mixture = run / "vae.safetensors", Mixture(0.2, 0.0, 0.2, 0.0)
    vae, facts = load_vae(kept).train(), checkpoint.load(kept)[1]
    before = facts.get("polished", 0)
    test = Camera(studio.sprites)(random_crops(random.Random(10**6), 32, 96, 13))
    drawings = Drawings.of(run, studio, captions, mixture, facts["steps"] + before, workers)

    def loss_of() -> Tensor:
        video, _, latents = drawings.draw(vae, MOST)
        with mixed_precision("cpu"):
            return F.l1_loss(vae.decode(latents).float(), video)

    def report(steps: int, mean: float) -> None:
        log(run, "polish", f"step {steps}: {mean:.5f}, {decibels(vae, test):.2f} dB of true latents")
        tensors = {f"vae.{k}": v for k, v in vae.state_dict().items()}
        checkpoint.save(kept, tensors, facts | {"polished": before + steps})

    _finish(vae, loss_of, report, timetable)


def train_retouch(run: Path, studio: Studio, captions: Captions, timetable: Timetable, workers: int) -> None:
    """Train what draws figures sharp in decoded frames, from its last checkpoint in `run` on if there is one; on the
    CPU.
    """
    kept, net, before = run / "retouch.safetensors", Retouch(RetouchSpec()), 0
    if kept.exists():
        tensors, facts = checkpoint.load(kept)
        net.load_state_dict(checkpoint.part(tensors, "retouch"))
        before = facts["steps"]
    drawings = Drawings.of(run, studio, captions, Mixture(0.25, 0.0, 0.3, 0.0), before, workers)
    frames = Retouching(drawings.net.memory, drawings.net.spec.artwork, drawings.dice)

    def report(steps: int, mean: float) -> None:
        log(run, "retouch", f"step {before + steps}: {mean:.5f}, {frames.gain():.2f} dB gained beside figures")
        checkpoint.save(kept, {f"retouch.{k}": v for k, v in net.state_dict().items()}, {"steps": before + steps})

    def loss_of() -> Tensor:
        video, batch, latents = drawings.draw(studio.vae, VAGUEST, RAGS)
        with mixed_precision("cpu"):
            with torch.no_grad():
                decoded = studio.vae.decode(latents).float()
            return frames.loss(net, video, decoded, batch)

    _finish(net, loss_of, report, timetable)


def train_courses(run: Path, sprites: Sprites, captions: Captions, timetable: Timetable) -> None:
    """Train in `run` what says where figures go, from its last checkpoint if there is one, on the CPU."""
    kept, net, facts = run / "course.safetensors", Course(DiTSpec()), {"steps": 0, "courses": 0, "minutes": 0.0}
    if kept.exists():
        tensors, facts = checkpoint.load(kept)
        net.load_state_dict(checkpoint.part(tensors, "net"))
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(LONGEST_AVERAGE))
    optimiser = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    lessons, dice = Lessons(sprites.feet, facts["steps"]), torch.Generator().manual_seed(facts["steps"])
    clock, before, losses = Clock(timetable.minutes), facts["minutes"], list[Tensor]()

    def keep() -> None:
        facts["minutes"] = round(before + (time.monotonic() - clock.began) / 60, 2)
        tensors = {f"net.{k}": v for k, v in net.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in average.module.state_dict().items()}
        checkpoint.save(kept, tensors, facts)

    while clock.running:
        lesson = next(lessons)
        loss = course_loss(net, lesson, *captions.of(lesson.words), dice)
        make_step(optimiser, net, loss, timetable.rate_at(clock.gone, facts["steps"]))
        average.update_parameters(net)
        facts["steps"] += 1
        facts["courses"] += len(lesson.words)
        losses.append(loss.detach())
        if clock.due("report", REPORT_SECONDS):
            log(run, "course", f"{facts} {torch.stack(losses).mean():.4f}")
            losses.clear()
        if clock.due("keep", KEEP_SECONDS):
            keep()
    keep()


class DenoiserRun:
    """The denoiser in training: network, running average, optimiser, and what was done so far."""

    def __init__(
        self, run: Path, studio: Studio, captions: Captions, scenery: Captions, names: Tensor, device: str
    ) -> None:
        self.run, self.device, self.captions, self.scenery, self.team = run, device, captions, scenery, Team()
        self.kept = run / "dit.safetensors"
        self.facts: dict[str, Any] = {"steps": 0, "views": 0, "minutes": 0.0}
        self.net, self.average = DiT(DiTSpec()).to(device), DiT(DiTSpec()).to(device)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        if self.kept.exists():
            self._restore()
        else:
            few = Examples(lambda _: Mixture(0.3, 0.0, 0.7, 0.0), 1, 4096)
            self.net.spread.copy_(latent_spread(studio, few, 100))
            fill_memory(self.net, captions, names, studio.sprites, studio.vae)
            self.average.load_state_dict(self.net.state_dict())
        for net in (self.net, self.average):
            animate(net, studio.sprites)
        if self.team.leads and not (run / "figures.zip").exists():
            write_figures(run / "figures.zip", studio.sprites)
        self.pointing, self.covering = Pointing(self.net), Covering(self.net)

    def _restore(self) -> None:
        tensors, self.facts = checkpoint.load(self.kept)
        self.net.load_state_dict(checkpoint.part(tensors, "net"))
        self.average.load_state_dict(checkpoint.part(tensors, "average"))
        self.optimiser.load_state_dict(checkpoint.restore_optimiser(self.optimiser.state_dict(), tensors))

    @property
    def seed(self) -> int:
        """A fresh seed for every start and every process."""
        return int(self.facts["steps"]) * self.team.size + self.team.rank

    def keep(self) -> None:
        """Write the checkpoint, if this process leads. Raises FloatingPointError where learning has gone wrong."""
        if not self.team.leads:
            return
        if not all(bool(p.isfinite().all()) for p in self.net.parameters()):
            raise FloatingPointError(f"weights are not finite any more: {self.kept} is as it was")
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= checkpoint.optimiser_tensors(self.optimiser.state_dict())
        checkpoint.save(self.kept, tensors, self.facts)

    def train(self, examples: Examples, timetable: Timetable, feed: Feed) -> None:
        """Train until the time is over."""
        size = sum(p.numel() for p in self.net.parameters()) / 1e6
        self._log(f"start: {self.facts}, {size:.2f} M parameters, {timetable}, {self.team.size}x")
        dice = torch.Generator(self.device).manual_seed(self.seed)
        clock, before = Clock(timetable.minutes), self.facts["minutes"]
        losses: dict[str, list[Tensor]] = defaultdict(list)
        examples.begin(60 * timetable.minutes)
        while self.team.meet(self.net, self.facts["steps"], clock.running):
            rate = timetable.rate_at(clock.gone, self.facts["steps"])
            for name, loss in self._learn(next(feed), dice, rate).items():
                losses[name].append(loss)
            self.facts["minutes"] = round(before + (time.monotonic() - clock.began) / 60, 2)
            if clock.due("report", REPORT_SECONDS):
                means = " ".join(f"{kind} {torch.stack(all_).mean():.4f}" for kind, all_ in sorted(losses.items()))
                self._log(f"{self.facts} {means}")
                losses.clear()
            if clock.due("keep", KEEP_SECONDS):
                self.keep()
        self.keep()
        self._log(f"end: {self.facts}")

    def _log(self, line: str) -> None:
        if self.team.leads:
            log(self.run, "dit", line)

    def _learn(self, batch: Batch, dice: torch.Generator, rate: float) -> dict[str, Tensor]:
        """One step on a batch; its loss by its kind, and how well it was known where to look and what is figure."""
        batch = batch.to(self.device)
        with mixed_precision(self.device):
            loss = denoising_loss(self.net, batch, self.captions, self.scenery, dice)
            pointing, covering = self.pointing.loss(batch), self.covering.loss(batch)
        make_step(self.optimiser, self.net, loss + POINTING * pointing + COVERING * covering, rate)
        self._follow(min(LONGEST_AVERAGE, (self.facts["steps"] + 1) / (self.facts["steps"] + 100)))
        self.facts["steps"] += 1
        self.facts["views"] += len(batch.words) * self.team.size
        return {batch.kind: loss.detach(), "pointing": pointing.detach(), "covering": covering.detach()}

    @torch.no_grad()
    def _follow(self, keep: float) -> None:
        torch._foreach_lerp_(list(self.average.parameters()), list(self.net.parameters()), 1 - keep)
