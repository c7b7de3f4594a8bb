"""Makes diorama's text encoder from MiniLM: a smaller vocabulary, int8 matrices, the same network."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from vocabulary import words

from sora_cli.model.text import quantised

KEEP = 12_000  # the vocabulary is ordered by frequency: its most frequent entries stay
POSITIONS = 64


def _kept(vocabulary: dict[str, int]) -> list[str]:
    wanted = words()
    return [
        token
        for token, index in sorted(vocabulary.items(), key=lambda item: item[1])
        if not token.startswith("[unused")
        and (index < KEEP or token in wanted or (token.isascii() and len(token.removeprefix("##")) == 1))
    ]


def prune(source: Path, target: Path) -> int:
    """Write `text.safetensors` and `tokenizer.json` into `target`; returns the size of the vocabulary that is left."""
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    kept = _kept(vocabulary)
    index = {token: i for i, token in enumerate(kept)}
    tokenizer["model"]["vocab"] = index
    tokenizer["padding"] = tokenizer["truncation"] = None
    for token in tokenizer["added_tokens"]:
        token["id"] = index[token["content"]]
    for special in tokenizer["post_processor"]["special_tokens"].values():
        special["ids"] = [index[token] for token in special["tokens"]]
    target.mkdir(parents=True, exist_ok=True)
    (target / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")))
    weights = load_file(source / "model.safetensors")
    rows = torch.tensor([vocabulary[token] for token in kept])
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][rows]
    weights["embeddings.position_embeddings.weight"] = weights["embeddings.position_embeddings.weight"][:POSITIONS]
    save_file(_packed(weights), target / "text.safetensors")
    return len(kept)


def _packed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    packed = {}
    for name, value in weights.items():
        if name.startswith("pooler.") or name == "embeddings.position_ids":
            continue
        if value.dim() == 2:
            packed[name], packed[f"{name}.scale"] = quantised(value)
        else:
            packed[name] = value.float()
    return packed
