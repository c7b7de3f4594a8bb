"""The loss of diorama's denoiser, and the features of the captions that it reads."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from examples import Batch, captions
from safetensors.torch import load_file, save_file
from torch import Tensor
from vocabulary import SCENES, SUBJECTS, words

from sora_cli.engine.networks import load_bert
from sora_cli.engine.vocabulary import read_tokenizer
from sora_cli.model.dit import Around, DiT
from sora_cli.model.tracing import Pose
from sora_weights.families.diorama import FAMILY
from sora_weights.spec import DiTSpec, TextSpec

TOLD = 0.8  # share of batches that are told where the figure stands, as most of what is drawn is
ASTRAY = 0.006  # how far off that is, as a share of the figure's size: what a draft's fit is off by
IN_PART = 0.3  # share of batches of which only a part is to be drawn, in view of the rest
BARE = 0.9  # share of those without a figure in that part that have none at all, as far as can be seen
SENTENCES = ("a {}", "a {} at sunset", "one {} moving left in the snow", "the {} jumping in a forest", "{}")
SCENE_WORDINGS = 5  # phrases for each scene
UNSAID = 0.4  # share of these without words: who takes something away rarely says what is behind it
BLOTCH = 3  # latents along a blotch
WORST = 0.8  # how strong blotches are at most, as a share of a channel's deviation
MILD = 0.5  # how much of that there is beside figures
UNNAMED = 0.1  # share of samples drawn as a whole, told where the figure stands, whose words say the scene alone
UNFILMED, UNFILMED_BESIDE = 0.1, 0.5  # shares of samples drawn as a whole and in part whose camera is unknown
FOCUS = 2.0  # how much more a latent weighs in the loss where it is all figure, or close to that
BESIDE = 2  # latents that are close
LIGHTS = 4.0  # the same for each deviation by which it stands out of the scene: stars, snowflakes, the moon's rim


class Captions(NamedTuple):
    """Features of captions in float16, (captions, m, e), which tokens are real, and which they are, (captions, m)."""

    features: Tensor
    seen: Tensor
    tokens: Tensor

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Features in float32 and which tokens are real of some captions, where their `rows` are."""
        rows, device = rows.to(self.seen.device), rows.device
        return self.features[rows].to(device).float(), self.seen[rows].to(device)


def caption_table(kept: Path, builtin: Path, device: str) -> Captions:
    """The captions' features; made once, then kept, and made again for captions whose words have changed since.

    `builtin` holds text.safetensors and tokenizer.json (`train.py text`). Raises ValueError for what was kept of a
    world with more captions or fewer.
    """
    spec, said = TextSpec(len(load_file(builtin / "text.safetensors")["embeddings.word_embeddings.weight"])), captions()
    tokens = torch.tensor([each.ids for each in _tokenizer(builtin, spec).encode_batch(said)])
    if kept.exists():
        table = Captions(**load_file(kept))
        if len(table.seen) != len(said):
            raise ValueError(f"{kept}: {len(table.seen)} captions, and the world has {len(said)}: remove the file")
    else:
        features = torch.zeros(len(said), spec.tokens, spec.width, dtype=torch.float16)
        table = Captions(features, torch.zeros(len(said), spec.tokens, dtype=torch.bool), torch.zeros_like(tokens))
    stale = (table.tokens != tokens).any(1).nonzero()[:, 0]
    if len(stale):
        encoder = load_bert(builtin / "text.safetensors", builtin / "tokenizer.json", spec, device)
        for rows in stale.split(512):
            features, seen = encoder([said[row] for row in rows.tolist()])
            table.features[rows], table.seen[rows] = features.half().cpu(), seen.cpu()
        table = table._replace(tokens=tokens)
        part = kept.with_suffix(".part")
        save_file(table._asdict(), part)
        part.replace(kept)
    return Captions(*(each.to(device) for each in table))


def scene_table(builtin: Path, device: str) -> Captions:
    """The features of what says where and no more: of `SCENE_WORDINGS` phrases for each scene, in order."""
    spec = TextSpec(len(load_file(builtin / "text.safetensors")["embeddings.word_embeddings.weight"]))
    encoder = load_bert(builtin / "text.safetensors", builtin / "tokenizer.json", spec, device)
    phrases = [phrase for scene in SCENES.values() for phrase in scene.phrases[-SCENE_WORDINGS:]]
    tokens = torch.tensor([each.ids for each in _tokenizer(builtin, spec).encode_batch(phrases)])
    features, seen = (each.to(device) for each in encoder(phrases))
    return Captions(features.half(), seen, tokens)


def name_table(builtin: Path, device: str) -> Tensor:
    """What the names of each subject mean: features of the last words of its phrases, and of the first one's plural, on
    the average over sentences, (subjects, n, e); nothing beyond the last one. Of a word's pieces the last one counts
    that no other word of the world has, or that the fewest have: a snowman is not found by its snow.
    """
    spec = TextSpec(len(load_file(builtin / "text.safetensors")["embeddings.word_embeddings.weight"]))
    encoder = load_bert(builtin / "text.safetensors", builtin / "tokenizer.json", spec, device)
    tokenizer, names = (
        read_tokenizer(builtin / "tokenizer.json"),
        torch.zeros(len(SUBJECTS), DiTSpec().names, spec.width),
    )
    used = Counter(piece for word in words() for piece in set(tokenizer.encode(f"{word} {word}s").tokens))
    for row, subject in zip(names, SUBJECTS.values(), strict=True):
        ends = [phrase.split()[-1] for phrase in subject.words]
        for k, name in enumerate(dict.fromkeys([*ends, f"{ends[0]}s"])):
            for sentence in SENTENCES:
                read, begin = tokenizer.encode(sentence.format(name)), sentence.index("{")
                spans = zip(read.offsets, read.tokens, strict=True)
                shared = [used[piece] if begin <= at[0] < at[1] <= begin + len(name) else 99 for at, piece in spans]
                telling = max(at for at, each in enumerate(shared) if each == min(shared))
                row[k] += encoder([sentence.format(name)])[0][0, telling].cpu() / len(SENTENCES)
    return names


def _tokenizer(builtin: Path, spec: TextSpec) -> Any:
    tokenizer = read_tokenizer(builtin / "tokenizer.json")
    tokenizer.enable_truncation(spec.tokens)
    tokenizer.enable_padding(length=spec.tokens)
    return tokenizer


def draw_timesteps(batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Timesteps (b, t) and which frames are to be learned (b, t).

    Logit-normal over whole samples, or even up to the batch's `noisiest`. Half of the clips hold known frames
    (clean, or a little noisy as CogVideoX's conditions: sigma = exp(N(-3, 0.5))), a tenth draw each frame by itself.
    """
    b, _, t = batch.latents.shape[:3]
    device = batch.latents.device

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, device=device)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, device=device)

    if batch.noisiest < 1:
        level = rand(b, 1) * (batch.noisiest - 0.02) + 0.02
    else:
        level = torch.sigmoid(randn(b, 1) * 1.2 + 0.9)  # what is where is decided early
    level = level.expand(b, t)
    if t == 1:
        return level, torch.ones_like(level, dtype=torch.bool)
    dice = rand(b, 1)
    level = torch.where(dice < 0.10, rand(b, t), level)
    known = _known_frames(b, t, rng, device) & (dice >= 0.10) & (dice < 0.60)
    noisy = torch.exp(randn(b, 1) * 0.5 - 3).clamp(max=0.25) * (rand(b, 1) < 0.5)
    return torch.where(known, noisy, level), ~known


def _known_frames(b: int, t: int, rng: torch.Generator, device: torch.device) -> Tensor:
    """Which frames of clips are known, (b, t): the beginning, the end, both, the first frame, or any; never all."""
    frames = torch.arange(t, device=device)
    count = torch.randint(1, max(2, t // 2 + 1), (b, 1), generator=rng, device=device)
    kind = torch.randint(0, 6, (b, 1), generator=rng, device=device)
    scattered = torch.rand(b, t, generator=rng, device=device).argsort(1).argsort(1) < count
    known = (frames < count) & ((kind <= 1) | (kind == 3))
    known |= (frames >= t - count) & ((kind == 2) | (kind == 3))
    known |= (frames == 0) & (kind == 4)
    known |= scattered & (kind == 5)
    return known & ~(known.all(1, keepdim=True) & (frames == t - 1))


def mixed_noise(like: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Noise like latents (b, c, t, h, w) of which all frames have a share in common, as the engine draws it."""
    common = torch.randn(like[:, :, :1].shape, generator=rng, device=like.device)
    return share**0.5 * common + (1 - share) ** 0.5 * torch.randn(like.shape, generator=rng, device=like.device)


def true_pose(batch: Batch) -> Pose:
    """Where the figures of a batch stand: the points of them that the first two latents show, which no sample has in
    its padding, say it.
    """
    area, (u, v) = batch.place.area, batch.artwork.unbind(1)
    slope = (u[..., 0, 1] - u[..., 0, 0]) / (area.columns[:, 1] - area.columns[:, 0])[:, None]
    x, y = area.columns[:, :1] - u[..., 0, 0] / slope, area.rows[:, :1] - v[..., 0, 0] / slope
    mirrored = batch.mirrored[:, None].float().expand_as(slope)
    width, height = area.width[:, None], area.height[:, None]
    return Pose(x / width, y / height, 2 / slope / area.side, mirrored, torch.ones_like(slope), batch.moment)


def _told(batch: Batch, rng: torch.Generator) -> Pose | None:
    """About where the figures of a batch stand, or nothing."""
    device = batch.latents.device
    if torch.rand((), generator=rng, device=device) > TOLD:
        return None
    true, area = true_pose(batch), batch.place.area
    off = torch.randn(3, *true.x.shape, generator=rng, device=device) * ASTRAY
    reach = true.size * area.side
    return Pose(
        true.x + off[0] * reach / area.width[:, None],
        true.y + off[1] * reach / area.height[:, None],
        true.size * (1 + off[2]),
        true.mirrored,
        true.there,
        true.moment,
    )


def _filmed(whole: Tensor, rng: torch.Generator) -> Tensor:
    """Of which samples the camera is known, (b,): of most of those of which the `whole` is to be drawn, (b,), and of
    fewer others, as who gives a part can't say how it was filmed.
    """
    share = torch.where(whole, UNFILMED, UNFILMED_BESIDE)
    return torch.rand(share.shape, generator=rng, device=share.device) >= share


def _left_out(batch: Batch, rng: torch.Generator) -> Tensor:
    """Where there is to be drawn in pictures of which the rest is known, (b, 1, 1, h, w): a box or an ellipse, most
    often about where the figure is.
    """
    (b, _, _, h, w), device = batch.latents.shape, batch.latents.device

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, device=device)

    shown = batch.figure.amax(1).flatten(1)
    at = (shown * rand(*shown.shape)).argmax(1, keepdim=True)
    anywhere = (rand(b, 1) < 0.5) | (shown.amax(1, keepdim=True) == 0)
    row = torch.where(anywhere, rand(b, 1) * h, at // w + 0.5)
    column = torch.where(anywhere, rand(b, 1) * w, at % w + 0.5)
    rows, columns = torch.arange(h, device=device) + 0.5, torch.arange(w, device=device) + 0.5
    down, across = (rows - row) / (0.1 + 0.5 * rand(b, 1)) / h, (columns - column) / (0.1 + 0.5 * rand(b, 1)) / w
    down, across = rearrange(down, "b h -> b 1 1 h 1"), rearrange(across, "b w -> b 1 1 1 w")
    round_ = rearrange(rand(b, 1) < 0.5, "b 1 -> b 1 1 1 1")
    return torch.where(round_, (down**2 + across**2).sqrt(), torch.maximum(down.abs(), across.abs())).le(1).float()


def _bare(batch: Batch, missing: Tensor, rng: torch.Generator) -> Tensor:
    """Most of the samples whose figure is not where there is to be drawn, (b,): these shall show no figure at all."""
    elsewhere = (batch.figure[:, None] * missing).amax((1, 2, 3, 4)) == 0
    return elsewhere & (torch.rand(len(elsewhere), generator=rng, device=elsewhere.device) < BARE)


def _blotches(spread: Tensor, like: Tensor, rng: torch.Generator) -> Tensor:
    """Smooth errors, each sample with its own amount, larger where a channel varies more: like (b, c, t, h, w)."""
    b, c, _, h, w = like.shape
    coarse = torch.randn(b, c, -(-h // BLOTCH), -(-w // BLOTCH), generator=rng, device=like.device)
    amount = WORST * torch.rand(b, 1, 1, 1, generator=rng, device=like.device)
    smooth = F.interpolate(coarse * amount * rearrange(spread, "c -> c 1 1"), (h, w), mode="bicubic")
    return smooth[:, :, None]


def _interest(batch: Batch, spread: Tensor) -> Tensor:
    """How much more than flat scenery each latent is to weigh, (b, 1, t, h, w): figures and what is close to them,
    where rags of them would hang, and what stands out of the scene, which is small and would be drawn pale otherwise.
    """
    frames = rearrange(batch.latents / rearrange(spread, "c -> c 1 1 1"), "b c t h w -> (b t) c h w")
    around = F.avg_pool2d(frames, 3, 1, 1, count_include_pad=False)
    apart = rearrange((frames - around).abs().mean(1), "(b t) h w -> b 1 t h w", b=len(batch.latents))
    figure = batch.figure[:, None]
    near = F.max_pool3d(figure, (1, 1 + 2 * BESIDE, 1 + 2 * BESIDE), 1, (0, BESIDE, BESIDE))
    return FOCUS * near + LIGHTS * apart.clamp(max=2) * (1 - figure)


def denoising_loss(net: DiT, batch: Batch, table: Captions, scenery: Captions, rng: torch.Generator) -> Tensor:
    """Velocity loss of the predicted clean latents: the mean of ((clean - predicted) / t)^2 over frames to learn.

    Latents of `_interest` weigh more: the optimum stays the same, but the little that is hard is learned sooner. Crops
    begin, to a share of their own, from what enlarging a smaller picture gives, as they do in use, with blotches as
    drafts have them, most of all on the figure. Of some batches only a part is to be drawn, often where nothing but
    `scenery` (`scene_table`) is to be seen. Words say how a sample is filmed where the numbers don't, and of some of
    those that are told where the figure stands, only in which scene, as of several figures in one picture.
    """
    timesteps, learned = draw_timesteps(batch, rng)
    device, signal = batch.latents.device, batch.latents
    level = rearrange(timesteps, "b t -> b 1 t 1 1")
    if batch.enlarged is not None:
        share = (2 * torch.rand(len(signal), 1, 1, 1, 1, generator=rng, device=device) - 0.5).clamp(0, 1)
        where = MILD + (1 - MILD) * batch.figure[:, None]
        start = batch.enlarged + where * _blotches(net.spread, signal, rng)
        share = share * (level / FAMILY.flow.refine_from).clamp(max=1)  # what is wrong is mended step by step
        signal = torch.lerp(signal, start, share * rearrange(learned, "b t -> b 1 t 1 1"))
    noisy = (1 - level) * signal + level * mixed_noise(signal, FAMILY.flow.shared_noise, rng)
    in_part = torch.rand((), generator=rng, device=device) < IN_PART
    moves = (batch.place.camera[:, :3] != 0).any((1, 2))
    filmed = _filmed(learned.all(1) & ~in_part, rng) | (moves & (batch.words == batch.silent))
    place = replace(batch.place, camera=batch.place.camera * filmed[:, None, None])
    features, seen = table.of(torch.where(filmed, batch.silent, batch.words))
    dropped = torch.rand(len(seen), 1, generator=rng, device=device) < (UNSAID if in_part else 0.1)
    pose, around, drawn = _told(batch, rng), None, None
    if in_part:
        drawn = _left_out(batch, rng)
        unnamed = _bare(batch, drawn, rng)
        hidden = rearrange(unnamed, "b -> b 1 1 1 1") * F.max_pool3d(batch.figure[:, None], (1, 3, 3), 1, (0, 1, 1))
        around = Around(batch.latents, (1 - drawn) * (hidden == 0))
        pose = true_pose(batch) if pose is None else pose
        pose = replace(pose, there=pose.there * ~unnamed[:, None])
    else:
        unnamed = torch.rand(len(seen), generator=rng, device=device) < UNNAMED * (pose is not None)
    told = None if pose is None else net.trace(pose, features, seen, batch.place)
    rows = batch.scene * SCENE_WORDINGS + torch.randint(0, SCENE_WORDINGS, unnamed.shape, generator=rng, device=device)
    features = torch.where(unnamed[:, None, None], scenery.features[rows].to(features), features)
    seen = torch.where(unnamed[:, None], scenery.seen[rows], seen)
    predicted = net(noisy, timesteps, features, seen & ~dropped, place, batch.mask, told, around=around)
    error = ((batch.latents - predicted) / level.clamp(min=0.02)) ** 2
    weight = rearrange(learned, "b t -> b 1 t 1 1") * (1 + _interest(batch, net.spread))
    if drawn is not None:
        weight = weight * drawn
    if batch.mask is not None:
        weight = weight * batch.mask[:, None]
    return (error.mean(1, keepdim=True) * weight).sum() / weight.sum().clamp(min=1)
