"""diorama's text encoder, a BERT: a prompt becomes a sequence of token features.

Its own few lines and not transformers' class, whose import takes seconds and 250 MB; a test holds it to the same bits.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sora_weights.spec import TextSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EPS = 1e-12  # of BERT's layer norms
KINDS = 2  # of sentences that BERT tells apart; a prompt is of the first
AT_ONCE = 12  # prompts that are encoded together


class Layer(nn.Module):
    """Self-attention and an MLP, each behind a residual and a norm; parts are named as in published files."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        width, self.heads = spec.width, spec.heads
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")}),
                "output": _closing(width, width),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, spec.inner)})
        self.output = _closing(spec.inner, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """X (b, n, d), mask (b, 1, n, n) true where a key may be seen, or None where all may -> x."""
        q, k, v = (
            rearrange(part(x), "b n (heads e) -> b heads n e", heads=self.heads)
            for part in self.attention["self"].values()  # type: ignore[operator]
        )
        found = rearrange(F.scaled_dot_product_attention(q, k, v, mask), "b heads n e -> b n (heads e)")
        x = _closed(self.attention["output"], found, x)
        return _closed(self.output, F.gelu(self.intermediate["dense"](x)), x)


def _closing(inward: int, width: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inward, width), "LayerNorm": nn.LayerNorm(width, EPS)})


def _closed(parts: nn.Module, y: Tensor, x: Tensor) -> Tensor:
    """norm(x + dense(y))."""
    assert isinstance(parts, nn.ModuleDict)
    return parts["LayerNorm"](parts["dense"](y) + x)


class Bert(nn.Module):
    """A BERT encoder (Devlin et al. 2018, arXiv:1810.04805) without its pooler."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        counts = {"word": spec.vocabulary, "position": spec.positions, "token_type": KINDS}
        # Of what they would be drawn from on the meta device, PyTorch's compiler would stay in memory.
        tables = {
            f"{name}_embeddings": nn.Embedding(count, spec.width, _weight=torch.zeros(count, spec.width))
            for name, count in counts.items()
        }
        self.embeddings = nn.ModuleDict({**tables, "LayerNorm": nn.LayerNorm(spec.width, EPS)})
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(spec) for _ in range(spec.depth))})

    def forward(self, ids: Tensor, seen: Tensor) -> Tensor:
        """Token ids (b, n), and 1 for those that are real, (b, n) -> features (b, n, d)."""
        kind, position = torch.zeros_like(ids), torch.arange(ids.shape[1], device=ids.device)[None]
        parts = self.embeddings
        x = parts["word_embeddings"](ids) + parts["token_type_embeddings"](kind)
        x = parts["LayerNorm"](x + parts["position_embeddings"](position))
        real = seen.bool()
        mask = None if real.all() else real[:, None, None].expand(-1, 1, ids.shape[1], -1)
        for layer in self.encoder["layer"].children():
            x = layer(x, mask)
        return x


@torch.no_grad()
def encode(network: Bert, tokenizer: "Tokenizer", prompts: list[str], tokens: int) -> tuple[Tensor, Tensor]:
    """Features of prompts: (b, tokens, e), and which of them are real, (b, tokens); longer prompts are cut.

    An empty prompt has no real token at all: it is the unconditional input of guidance.
    """
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding(length=tokens)
    encodings, device = tokenizer.encode_batch(prompts), next(network.parameters()).device
    ids = torch.tensor([encoding.ids for encoding in encodings], device=device)
    seen = torch.tensor([encoding.attention_mask for encoding in encodings], device=device)
    parts = zip(torch.split(ids, AT_ONCE), torch.split(seen, AT_ONCE), strict=True)
    features = torch.cat([network(*part) for part in parts])
    given = torch.tensor([[bool(prompt.strip())] for prompt in prompts], device=device)
    return features * seen[..., None], seen.bool() & given


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix as int8 with one float32 scale a row: half the size of float16 at about 0.4 % error."""
    scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
    return (weight.float() / scale).round().to(torch.int8), scale.squeeze(1)


def dequantised(weight: Tensor, scale: Tensor) -> Tensor:
    """The inverse of `quantised`, in float32."""
    return weight.float() * scale[:, None]
