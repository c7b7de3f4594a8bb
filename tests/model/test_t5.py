"""T5 and UMT5 features are those of the reference pipelines, from files as they are released."""

import html
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import CogVideoXPipeline, WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer, UMT5Config, UMT5EncoderModel

from sora_cli.engine.tokens import open_tokenizer
from sora_cli.model.t5 import WIDE, clean, encode_t5, t5
from sora_weights.errors import WeightsError
from sora_weights.header import Entry
from sora_weights.reader import WeightFiles, load_into, match, open_weights
from sora_weights.rules.t5 import KEYS, t5_spec
from sora_weights.spec import T5Spec

SIZES = {"vocab_size": 300, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 3, "num_heads": 4}
KINDS = {"t5": (T5Config, T5EncoderModel), "umt5": (UMT5Config, UMT5EncoderModel)}
PROMPTS = [
    "",
    "a red fox",
    "  A fox &amp;amp; a dog\n\trun &lt;b&gt;  fast ",
    "猫 🦊 ½ ﬁ <extra_id_0>",
    "a quiet harbour at dawn, " * 30,
]
XXL = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "feed_forward_proj": "gated-gelu",
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
}


def oracle(kind: str, activation: str = "gated-gelu") -> nn.Module:
    """A tiny random encoder of transformers, every parameter awake."""
    config, network = KINDS[kind]
    torch.manual_seed(0)
    awake = network(config(**SIZES, feed_forward_proj=activation)).eval()
    with torch.no_grad():
        for parameter in awake.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return awake


def saved(path: Path, network: nn.Module) -> tuple[Path, dict[str, Any]]:
    network.save_pretrained(path)
    return path, json.loads((path / "config.json").read_text())


def loaded(path: Path, spec: T5Spec, dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.device("meta"):
        network = t5(spec)
    load_into(network, open_weights(path), KEYS, dtype, "cpu", WIDE if dtype == torch.float16 else ())
    return network


def tokenizer_folder(path: Path) -> Path:
    T5Tokenizer(vocab=pieces()).save_pretrained(path)
    return path


def pieces() -> list[tuple[str, float]]:
    letters = [(letter, -5.0) for letter in "▁abcdefghijklmnopqrstuvwxyz,.&;<>猫"]
    words = [("▁fox", -2.0), ("▁a", -1.5), ("▁the", -2.5), ("har", -3.0), ("▁dawn", -3.0)]
    extra = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]
    return [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters, *words, *extra]


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def pipeline(network: nn.Module, tokens: Path) -> SimpleNamespace:
    """What a pipeline's prompt encoding touches of the pipeline."""
    return SimpleNamespace(
        tokenizer=T5Tokenizer.from_pretrained(tokens), text_encoder=network, _execution_device=torch.device("cpu")
    )


@pytest.mark.parametrize("length", [9, 226, 512])
def test_wan_features_are_those_of_its_pipeline(tmp_path: Path, length: int) -> None:
    reference = oracle("umt5")
    path, config = saved(tmp_path / "text_encoder", reference)
    tokens = tokenizer_folder(tmp_path / "tokenizer")
    spec = t5_spec(config, tokens=length, masked=True, cleaned=True)
    with torch.no_grad():
        theirs = WanPipeline._get_t5_prompt_embeds(
            pipeline(reference, tokens), PROMPTS, max_sequence_length=length, device=torch.device("cpu")
        )
    ours, real = encode_t5(loaded(path, spec), open_tokenizer(tokens), spec, PROMPTS)
    assert ours.shape == theirs.shape == (len(PROMPTS), length, SIZES["d_model"])
    assert relative_error(ours, theirs) <= 1e-5
    assert real.sum(1).tolist() == [int(row.abs().sum(1).count_nonzero()) for row in theirs]
    assert ours[~real].count_nonzero() == 0


@pytest.mark.parametrize("length", [9, 226])
@pytest.mark.parametrize("activation", ["gated-gelu", "relu"])
def test_cogvideox_features_are_those_of_its_pipeline(tmp_path: Path, length: int, activation: str) -> None:
    reference = oracle("t5", activation)
    path, config = saved(tmp_path / "text_encoder", reference)
    tokens = tokenizer_folder(tmp_path / "tokenizer")
    spec = t5_spec(config, tokens=length, masked=False, cleaned=False)
    with torch.no_grad():
        theirs = CogVideoXPipeline._get_t5_prompt_embeds(
            pipeline(reference, tokens), PROMPTS, max_sequence_length=length, device=torch.device("cpu")
        )
    ours, real = encode_t5(loaded(path, spec), open_tokenizer(tokens), spec, PROMPTS)
    assert ours.shape == theirs.shape == (len(PROMPTS), length, SIZES["d_model"])
    assert relative_error(ours, theirs) <= 1e-5
    assert real[0].tolist() == [True] + [False] * (length - 1)


def test_padding_is_read_like_any_token_where_nothing_is_masked(tmp_path: Path) -> None:
    path, config = saved(tmp_path / "text_encoder", oracle("t5"))
    tokens = open_tokenizer(tokenizer_folder(tmp_path / "tokenizer"))
    spec = t5_spec(config, tokens=12, masked=False, cleaned=False)
    network = loaded(path, spec)
    longer, _ = encode_t5(network, tokens, replace(spec, tokens=40), ["a fox"])
    shorter, _ = encode_t5(network, tokens, spec, ["a fox"])
    assert relative_error(longer[:, :3], shorter[:, :3]) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_what_transformers_keeps(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    path, config = saved(tmp_path / "text_encoder", oracle(kind))
    reference = KINDS[kind][1].from_pretrained(path, dtype=dtype).eval()
    spec = t5_spec(config, tokens=9, masked=False, cleaned=False)
    network = loaded(path, spec, dtype)
    theirs = dict(reference.encoder.named_parameters())
    assert {name: p.dtype for name, p in network.named_parameters()} == {name: p.dtype for name, p in theirs.items()}
    assert all(torch.equal(parameter, theirs[name]) for name, parameter in network.named_parameters())
    assert {p.dtype for name, p in theirs.items() if ".wo." in name} == {
        torch.float32 if dtype == torch.float16 else torch.bfloat16
    }
    ids = torch.arange(4, 20)[None]
    with torch.no_grad():
        assert torch.equal(network(input_ids=ids).last_hidden_state, reference(input_ids=ids).last_hidden_state)


def test_token_embedding_may_stand_in_the_file_twice(tmp_path: Path) -> None:
    path, config = saved(tmp_path, oracle("t5"))
    tensors = load_file(path / "model.safetensors")
    save_file(tensors | {"encoder.embed_tokens.weight": tensors["shared.weight"] + 0}, path / "model.safetensors")
    network = loaded(path, t5_spec(config, tokens=9, masked=False, cleaned=False))
    assert torch.equal(network.embed_tokens.weight, tensors["shared.weight"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"shared.weight": None}, r"key shared\.weight is missing"),
        ({"encoder.block.2.layer.0.SelfAttention.q.weight": None}, r"key encoder\.block\.2\.layer\.0\.SelfAtt"),
        ({"encoder.block.9.layer.0.layer_norm.weight": torch.ones(24)}, r"block\.9\..* is not one that this model has"),
        ({"decoder.final_layer_norm.weight": torch.ones(24)}, r"decoder\.final_layer_norm\.weight is not one"),
        (
            {"encoder.final_layer_norm.weight": torch.ones(25)},
            r"encoder\.final_layer_norm\.weight \(25,\) has the wrong",
        ),
    ],
)
def test_file_that_does_not_fit_is_refused_by_key(
    tmp_path: Path, change: dict[str, Tensor | None], problem: str
) -> None:
    path, config = saved(tmp_path, oracle("t5"))
    tensors = load_file(path / "model.safetensors") | change
    save_file({name: x for name, x in tensors.items() if x is not None}, path / "model.safetensors")
    with pytest.raises(WeightsError, match=problem):
        loaded(path, t5_spec(config, tokens=9, masked=False, cleaned=False))


@pytest.mark.parametrize(("kind", "vocabulary", "count"), [("t5", 32128, 219), ("umt5", 256384, 242)])
def test_full_size_keys_match_exactly(kind: str, vocabulary: int, count: int) -> None:
    config_class, network_class = KINDS[kind]
    config = {**XXL, "vocab_size": vocabulary}
    with torch.device("meta"):
        released = network_class(config_class(**config)).state_dict()
        network = t5(t5_spec({**config, "model_type": kind}, tokens=512, masked=True, cleaned=True))
    path = Path("model.safetensors")
    entries = {
        name: Entry(name, "BF16", tuple(tensor.shape), path, 0)
        for name, tensor in released.items()
        if name != "encoder.embed_tokens.weight"
    }
    steps = match(network, WeightFiles(path, entries, (path,)), KEYS)
    assert len(steps) == len(entries) == count
    assert {target for step in steps for target in step.targets} == set(network.state_dict())


def test_tokenizer_of_another_encoder_is_refused(tmp_path: Path) -> None:
    path, config = saved(tmp_path / "text_encoder", oracle("t5"))
    tokens = open_tokenizer(tokenizer_folder(tmp_path / "tokenizer"))
    spec = t5_spec(config, tokens=9, masked=False, cleaned=False)
    network = loaded(path, spec)
    with pytest.raises(WeightsError, match=r"tokenizer: token 1\d\d is not one of the text encoder's 100"):
        encode_t5(network, tokens, replace(spec, vocabulary=100), ["<extra_id_0>"])


@pytest.mark.parametrize(
    "text",
    [
        *PROMPTS,
        "&amp;amp;amp; &#x1F98A; &nbsp;x&nbsp;",
        "".join(chr(code) for code in range(0x3001) if chr(code).isspace()).join("abcdefghijklmnopqrstuvwxyzABCDE"),
        "\x1c\x1fa\x1cb\x1d",
        "\u200ba\u200b \ufeff",
    ],
)
def test_prompts_are_cleaned_as_wan_cleans_them(text: str) -> None:
    assert clean(text) == prompt_clean(text)


def test_every_white_space_character_is_cleaned_as_wan_cleans_it() -> None:
    text = "".join(f"{chr(code)}x" for code in range(0x10000) if not 0xD800 <= code < 0xE000 and code != ord("&"))
    assert clean(text) == prompt_clean(text)


def test_prompts_are_mended_first_where_ftfy_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    mender = ModuleType("ftfy")
    mender.fix_text = lambda text: text.replace("Ã©", "é&amp;lt;")
    mender.__spec__ = SimpleNamespace(name="ftfy")
    monkeypatch.setitem(sys.modules, "ftfy", mender)
    assert clean("  cafÃ©  ") == html.unescape("café&lt;")


WRONG = {
    "model_type": ("bert", None, 5),
    "vocab_size": ("x", 0, 10**12, True, 3.5, None),
    "d_model": ("x", -4, 2**40, [4096]),
    "d_kv": (0, "64", {}),
    "d_ff": (0, None),
    "num_layers": (0, 10**6, "24"),
    "num_heads": (0, 10**5),
    "relative_attention_num_buckets": (2, "x"),
    "relative_attention_max_distance": (8, None),
    "feed_forward_proj": ("gated-os.system", 7, "", None),
    "dense_act_fn": ("relu", 3),
    "is_gated_act": (False,),
    "layer_norm_epsilon": (0, -1.0, float("nan"), float("inf"), "1e-6", True),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_value_that_can_not_be_is_named(key: str, value: object) -> None:
    config = {**XXL, "vocab_size": 32128, "model_type": "t5", key: value}
    with pytest.raises(WeightsError, match=rf"text_encoder/config\.json: {key} is ") as refused:
        t5_spec(config, tokens=226, masked=False, cleaned=False)
    assert refused.value.code == "bad_weights"
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("config", [[], "x", None, 3])
def test_config_that_is_no_object_is_refused(config: Any) -> None:
    with pytest.raises(WeightsError, match=r"text_encoder/config\.json: it is no JSON object"):
        t5_spec(config, tokens=226, masked=False, cleaned=False)


def test_missing_size_is_named_and_what_old_files_leave_out_is_not() -> None:
    config = {**XXL, "vocab_size": 32128, "model_type": "t5"}
    old = {
        key: value for key, value in config.items() if key not in ("relative_attention_max_distance", "is_gated_act")
    }
    assert t5_spec(old, tokens=226, masked=False, cleaned=False).distance == 128
    del config["d_model"]
    with pytest.raises(WeightsError, match="d_model is missing"):
        t5_spec(config, tokens=226, masked=False, cleaned=False)
