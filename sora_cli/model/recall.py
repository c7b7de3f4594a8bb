"""A memory of figures that a denoiser looks up by the words of its prompt, and the attention that reads it.

Small networks spend their weights on memorising what things look like. Here pictures of the figures are kept, found by
meaning, and copied from (Blattmann et al. 2022, Retrieval-Augmented Diffusion Models, arXiv:2204.11824, section 3, with
a memory of pictures instead of CLIP embeddings; the pointer is that of See et al. 2017, Get To The Point,
arXiv:1704.04368, section 2.2, to places instead of words).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sora_cli.model.artwork import RATE, Artwork, picture_at
from sora_cli.model.layers import RMSNorm, learned
from sora_kernels import attention
from sora_weights.spec import DiTSpec

ALIKE = 0.63  # cosine from which a word means a figure: names of training lie above 0.7, other things mostly below 0.6


class Memory(nn.Module):
    """Pictures of figures under the meaning of their names, and sheets of latents of them, as they face left and in the
    mirror.

    The pictures are `artwork`, which whoever builds the network puts there. `patches` and `plain` make scaled latents
    of frames, `tints` and `tone` the mean colour of scaled latents.
    """

    artwork: Artwork

    centre: Tensor
    names: Tensor
    sheets: Tensor
    patches: Tensor
    plain: Tensor
    tints: Tensor
    tone: Tensor

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__()
        side = spec.sheet
        self.register_buffer("centre", torch.zeros(spec.text_width))  # the mean of all text features
        self.register_buffer(
            "names", torch.zeros(spec.figures, spec.names, spec.text_width)
        )  # unit vectors, or nothing
        self.register_buffer("sheets", torch.zeros(spec.figures, spec.views, spec.channels + 1, side, side))
        self.register_buffer("patches", torch.zeros(spec.channels, 3, spec.time, spec.space, spec.space))
        self.register_buffer("plain", torch.zeros(spec.channels))
        self.register_buffer("tints", torch.zeros(3, spec.channels))
        self.register_buffer("tone", torch.zeros(3))
        self.embed = nn.Conv2d(spec.channels + 1, spec.width, 3, padding=1)
        self.place = learned(spec.views * side * side, spec.width)

    def find(self, text: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The figure (b,) to one of whose names a word of text (b, m, e), real where `seen` (b, m), comes nearest, and
        whether it comes near enough (b,).
        """
        words = F.normalize(text.float() - self.centre, dim=-1)
        alike = torch.einsum("b m e, k n e -> b m k n", words, self.names).masked_fill(~seen[..., None, None], -1.0)
        best = alike.amax((1, 3)).max(1)
        return best.indices, best.values > ALIKE

    def forward(self, text: Tensor, seen: Tensor) -> "Sheet":
        """The sheets of the figure that each prompt is about."""
        figure, found = self.find(text, seen)
        latents = self.sheets[figure].to(self.embed.weight.dtype)
        embedded = self.embed(rearrange(latents, "b views c h w -> (b views) c h w"))
        tokens = rearrange(embedded, "(b views) d h w -> b (views h w) d", b=len(figure)) + self.place
        return Sheet(tokens, figure, found[:, None, None].to(tokens.dtype))

    def loop(self, figure: Tensor) -> float:
        """How many seconds the animation of a figure (1,) takes."""
        return int(self.artwork.counts(figure)) / RATE

    def picture(self, figures: Tensor, seconds: Tensor, level: int) -> Tensor:
        """Figures (b,) as they are so many `seconds` (b,) into their loops, `level` times halved: (b, 4, P, P) in
        [0, 1].
        """
        return picture_at(self.artwork, figures, seconds, level)


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """What the memory holds for a batch: tokens (b, m, d), the figures that they show (b,), and 1 or 0, (b, 1, 1), for
    whether there is anything.
    """

    tokens: Tensor
    figure: Tensor
    found: Tensor


class Asking(nn.Module):
    """Normed queries of a video's tokens and keys of a sheet's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.q_norm = RMSNorm(width // heads)
        self.k_norm = RMSNorm(width // heads)

    def forward(self, x: Tensor, sheet: Tensor) -> tuple[Tensor, Tensor]:
        """X (b, n, d) and a sheet (b, m, d) -> queries (b, heads, n, e), keys (b, heads, m, e)."""
        q, k = (
            rearrange(part, "b n (heads e) -> b heads n e", heads=self.heads) for part in (self.q(x), self.k(sheet))
        )
        return self.q_norm(q), self.k_norm(k)


class Recall(nn.Module):
    """Attention from the tokens of a video to the sheets of a figure; begins by adding nothing."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.asking = Asking(width, heads)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, sheet: Sheet) -> Tensor:
        """What x (b, n, d) finds on its sheet, (b, n, d); nothing where there is none."""
        q, k = self.asking(x, sheet.tokens)
        v = rearrange(self.v(sheet.tokens), "b m (heads e) -> b heads m e", heads=self.heads)
        return self.out(rearrange(attention(q, k, v), "b heads n e -> b n (heads e)")) * sheet.found


class Pointer(nn.Module):
    """Where on the sheet each latent of a patch looks, one head for each, and how much of the latent is figure."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.asking = Asking(width, patch * patch)
        self.cover = nn.Linear(width, patch * patch)

    def forward(self, x: Tensor, sheet: Sheet) -> tuple[Tensor, Tensor]:
        """(b, n, d) -> shares of attention (b, heads, n, m), and logits of coverage (b, n, heads)."""
        q, k = self.asking(x, sheet.tokens)
        looked = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).float().softmax(-1)
        return looked, self.cover(x)
