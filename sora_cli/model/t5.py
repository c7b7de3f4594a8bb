"""T5 and UMT5 text encoders: a prompt becomes a sequence of token features. The networks are transformers' own."""

import html
import re
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from sora_weights.errors import WeightsError
from sora_weights.spec import T5Spec

if TYPE_CHECKING:
    from sora_cli.engine.tokens import PromptTokenizer

WHITE_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
"""Unicode's White_Space property; Python's own \\s has four control characters more."""
WIDE = (".wo.",)
"""Matrices whose sums overflow in float16: there they stay in float32, as transformers keeps them."""


def t5(spec: T5Spec) -> nn.Module:
    """An uninitialised encoder of the sizes in `spec`, on the current default device.

    It is the stack inside transformers' T5EncoderModel or UMT5EncoderModel, which adds nothing to it but a second name
    for the token embedding: so every weight has one name.
    """
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    config_class, network_class = {"t5": (T5Config, T5EncoderModel), "umt5": (UMT5Config, UMT5EncoderModel)}[spec.kind]
    config = config_class(
        vocab_size=spec.vocabulary,
        d_model=spec.width,
        d_kv=spec.head_width,
        d_ff=spec.inner,
        num_layers=spec.depth,
        num_heads=spec.heads,
        relative_attention_num_buckets=spec.buckets,
        relative_attention_max_distance=spec.distance,
        feed_forward_proj=spec.activation,
        layer_norm_epsilon=spec.eps,
        dropout_rate=0.0,
    )
    return network_class(config).encoder.eval().requires_grad_(False)


def clean(text: str) -> str:
    """A prompt with its HTML entities resolved, twice over, and every run of white space one space.

    Where the ftfy package is installed it mends broken characters first, because the reference pipeline does then too.
    """
    if find_spec("ftfy"):
        text = import_module("ftfy").fix_text(text)
    return WHITE_SPACE.sub(" ", html.unescape(html.unescape(text)).strip()).strip()


@torch.no_grad()
def encode_t5(
    network: nn.Module, tokenizer: "PromptTokenizer", spec: T5Spec, prompts: list[str]
) -> tuple[Tensor, Tensor]:
    """Features of prompts, (b, tokens, d), and which of the tokens are not padding, (b, tokens) bool.

    A masked encoder never sees padding, so what follows the longest prompt is not computed: its features are zeros.
    Raises WeightsError("bad_weights") for a tokenizer that is not the encoder's.
    """
    texts = [clean(prompt) for prompt in prompts] if spec.cleaned else prompts
    pairs = [tokenizer.ids(text, spec.tokens) for text in texts]
    ids = torch.tensor([ids for ids, _ in pairs])
    real = torch.tensor([mask for _, mask in pairs])
    if int(ids.max()) >= spec.vocabulary:
        wrong = f"{tokenizer.folder}: token {int(ids.max())} is not one of the text encoder's {spec.vocabulary}"
        raise WeightsError("bad_weights", wrong, "use the model's own files")
    device = next(network.parameters()).device
    ids, real = ids.to(device), real.to(device)
    if not spec.masked:
        return network(input_ids=ids).last_hidden_state, real
    longest = int(real.sum(1).max())
    seen = real[:, :longest]
    features = network(input_ids=ids[:, :longest], attention_mask=seen.long()).last_hidden_state
    features = features.masked_fill(rearrange(~seen, "b n -> b n 1"), 0)
    return nn.functional.pad(features, (0, 0, 0, spec.tokens - longest)), real
