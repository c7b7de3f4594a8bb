"""Where a figure goes, and what the camera sees, in every latent frame, from words, by a small denoiser of its own.

A course has seven numbers a frame. To draw them before any picture is drawn costs next to nothing, and a video that is
told where its figure stands goes where the words say (Lin et al. 2023, VideoDirectorGPT, arXiv:2309.15091, section 3,
with flow matching instead of a language model). One timestep per frame, so known poses are frames at timestep 0.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sora_cli.model.layers import Projector, learned, sinusoid
from sora_cli.model.tracing import USUAL_RATE, Pose
from sora_weights.spec import DiTSpec

POSE = 4  # numbers of one: place across and down, the logarithm of the size, and the side that it faces
NUMBERS = POSE + 3  # and of a camera: where it looks, across and down, and the logarithm of how far it sees
CENTRE = (0.5, 0.55, -0.8, 0.0, 0.0, 0.0, 0.0)  # of each, about
SPREAD = (0.15, 0.12, 0.25, 1.0, 0.1, 0.1, 0.2)  # its standard deviation, about
HEADS = 4
MOMENTS = 60.0  # a second lies so far apart from the next as numbers of a sentence do in the sinusoids


def shape_of(width: int, height: int, rate: float) -> Tensor:
    """What a course depends on of a picture of so many pixels and of the latent frames in a second: (2,)."""
    return torch.tensor([width / height, rate / USUAL_RATE]).log2()


class Course(nn.Module):
    """The denoiser of courses: noisy poses, a timestep per latent frame, text, and the shape of the picture."""

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__()
        width = spec.course_width
        self.width = width
        self.pose_in = nn.Linear(NUMBERS, width)
        self.time = Projector(width, width)
        self.moment = Projector(width, width)
        self.shape = Projector(2, width)
        self.text_in = Projector(spec.text_width, width)
        self.nothing = learned(1, width)
        layer = nn.TransformerDecoderLayer(
            width, HEADS, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerDecoder(layer, spec.course_depth, norm=nn.LayerNorm(width))
        self.out = nn.Linear(width, NUMBERS)

    def forward(
        self, x: Tensor, timesteps: Tensor, text: Tensor, seen: Tensor, seconds: Tensor, shape: Tensor
    ) -> Tensor:
        """Predict clean numbers of poses from x = (1 - t) clean + t noise, both (b, 7, n, 1, 1).

        Timesteps (b, n) in [0, 1]; text (b, m, e) with `seen` (b, m) true at real tokens; the latent frames' `seconds`
        (b, n); `shape` (b, 2) as `shape_of` gives it.
        """
        noisy = rearrange(x, "b k n 1 1 -> b n k")
        tokens = self.pose_in(noisy) + self.time(sinusoid(timesteps * 1000, self.width))
        tokens = tokens + self.moment(sinusoid(seconds * MOMENTS, self.width)) + self.shape(shape)[:, None]
        words = torch.cat([self.nothing.expand(len(text), 1, -1), self.text_in(text)], 1)
        unseen = F.pad(~seen, (1, 0))
        tokens = self.blocks(tokens, words, memory_key_padding_mask=unseen)
        level = timesteps[..., None]
        total = (1 - level) ** 2 + level**2
        clean = noisy * (1 - level) / total + self.out(tokens) * level / total.sqrt()
        return rearrange(clean, "b n k -> b k n 1 1")

    @staticmethod
    def numbers(pose: Pose, camera: Tensor) -> Tensor:
        """A pose and a camera (b, 3, n) as what is denoised, (b, 7, n, 1, 1)."""
        values = (pose.x, pose.y, pose.size.log(), 2 * pose.mirrored - 1, *camera.unbind(1))
        scaled = [(each - centre) / spread for each, centre, spread in zip(values, CENTRE, SPREAD, strict=True)]
        return torch.stack(scaled, 1)[..., None, None]

    @staticmethod
    def pose(numbers: Tensor) -> Pose:
        """The pose that `numbers` (b, 7, n, 1, 1) say."""
        scaled = zip(numbers[:, :POSE, :, 0, 0].unbind(1), CENTRE[:POSE], SPREAD[:POSE], strict=True)
        x, y, size, side = (each * spread + centre for each, centre, spread in scaled)
        return Pose(x, y, size.exp(), (side > 0).to(x), torch.ones_like(x), torch.zeros_like(x))

    @staticmethod
    def camera(numbers: Tensor) -> Tensor:
        """The camera that `numbers` (b, 7, n, 1, 1) say, (b, 3, n)."""
        spread = torch.tensor(SPREAD[POSE:], device=numbers.device)
        return numbers[:, POSE:, :, 0, 0] * rearrange(spread, "k -> k 1")
