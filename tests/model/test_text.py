"""diorama's text encoder: the features that transformers' BERT gives, to the last bit, without its import."""

import os
import subprocess
import sys

import torch
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertModel

from sora_cli.engine.networks import load_bert
from sora_cli.engine.vocabulary import read_tokenizer
from sora_cli.model.text import Bert
from sora_weights.registry import find_model
from sora_weights.spec import TextSpec

LEAN = """
import sys
from sora_cli.engine.devices import choose_precision
from sora_cli.engine.networks import check_parts, load_backbone, load_text_encoder, load_vae
from sora_weights.registry import find_model
model = find_model("diorama")
precision = choose_precision("auto", "cpu", model)
check_parts(model)
load_text_encoder(model, "cpu", precision)(["a dog on a beach"])
load_vae(model, "cpu", precision), load_backbone(model, "cpu", precision)
print(*({"transformers", "sympy", "torch._dynamo"} & set(sys.modules)))
"""


def reference(spec: TextSpec) -> BertModel:
    config = BertConfig(
        vocab_size=spec.vocabulary,
        hidden_size=spec.width,
        num_hidden_layers=spec.depth,
        num_attention_heads=spec.heads,
        intermediate_size=spec.inner,
        max_position_embeddings=spec.positions,
    )
    return BertModel(config, add_pooling_layer=False).eval()


@torch.no_grad()
def test_features_are_those_of_transformers():
    torch.manual_seed(0)
    spec = TextSpec(vocabulary=50, width=24, depth=2, heads=3, inner=40, positions=16)
    theirs, ours = reference(spec), Bert(spec).eval()
    ours.load_state_dict(theirs.state_dict())
    ids = torch.randint(50, (3, 16))
    for seen in (torch.ones(3, 16, dtype=torch.int64), (torch.arange(16) < torch.tensor([[4], [16], [9]])).long()):
        wanted = theirs(input_ids=ids, attention_mask=seen).last_hidden_state
        torch.testing.assert_close(ours(ids, seen), wanted, rtol=0, atol=0)


@torch.no_grad()
def test_dioramas_encoder_gives_the_bits_that_its_denoiser_was_trained_on():
    model = find_model("diorama")
    spec = model.specs.text
    assert isinstance(spec, TextSpec)
    encode = load_bert(model.parts["text"], model.parts["tokenizer"], spec)
    network = next(cell.cell_contents for cell in encode.__closure__ if isinstance(cell.cell_contents, Bert))
    theirs = reference(spec)
    theirs.load_state_dict(network.state_dict())
    prompts = ["a red fox running on the beach at sunset", "", "a cat " * 40]
    features, _ = encode(prompts)
    tokenizer = read_tokenizer(model.parts["tokenizer"])
    tokenizer.enable_truncation(spec.tokens)
    tokenizer.enable_padding(length=spec.tokens)
    read = tokenizer.encode_batch(prompts)
    ids, seen = torch.tensor([one.ids for one in read]), torch.tensor([one.attention_mask for one in read])
    wanted = theirs(input_ids=ids, attention_mask=seen).last_hidden_state * seen[..., None]
    torch.testing.assert_close(features, wanted, rtol=0, atol=0)


def test_diorama_loads_neither_transformers_nor_a_compiler():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == ""
