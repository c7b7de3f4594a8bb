"""Tokenizer folders give the ids that transformers' T5Tokenizer gives for them, without its optional packages."""

import base64
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast, T5Tokenizer

from sora_cli.engine.pieces import read_pieces
from sora_cli.engine.tokens import PromptTokenizer, open_tokenizer
from sora_weights.errors import WeightsError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "spiece"
RECORDED = json.loads((FIXTURES / "ids.json").read_text())
TEXTS = [row["text"] for row in RECORDED["plain"]]
EXTRA = [f"<extra_id_{i}>" for i in range(100)]
NAMED = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def spiece_folder(path: Path, model: str = "plain", **files: object) -> Path:
    path.mkdir(exist_ok=True)
    (path / "spiece.model").write_bytes((FIXTURES / f"{model}.model").read_bytes())
    return with_files(path, **files)


def with_files(path: Path, **files: object) -> Path:
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def described(text: str, **flags: bool) -> dict[str, Any]:
    """An added token as tokenizer_config.json lists it."""
    plain = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": text, **plain, "special": True, **flags}


def listed(pieces: int) -> dict[str, Any]:
    """added_tokens_decoder as the CogVideoX repositories ship it."""
    sentinels = {str(pieces + 99 - i): described(text, lstrip=True, rstrip=True) for i, text in enumerate(EXTRA)}
    return {"0": described("<pad>"), "1": described("</s>"), "2": described("<unk>"), **sentinels}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> T5Tokenizer:
    """transformers' own tokenizer from the pieces of the fixture, as its converter builds it."""
    model = read_pieces((FIXTURES / "plain.model").read_bytes())
    vocabulary = [(piece.text, piece.score) for piece in model.pieces]
    return T5Tokenizer(
        vocab=vocabulary + [(text, 0.0) for text in reversed(EXTRA)], _spm_precompiled_charsmap=model.charsmap
    )


def assert_same_ids(own: PromptTokenizer, oracle: Any, text: str, length: int) -> None:
    expected = oracle(text, padding="max_length", max_length=length, truncation=True)
    ids, mask = own.ids(text, length)
    assert ids == expected.input_ids
    assert mask == [bool(seen) for seen in expected.attention_mask]


@pytest.mark.parametrize("model", ["plain", "marked"])
def test_spiece_model_alone_gives_the_recorded_ids(tmp_path: Path, model: str) -> None:
    tokenizer = open_tokenizer(spiece_folder(tmp_path, model))
    for row in RECORDED[model]:
        ids, mask = tokenizer.ids(row["text"], 512)
        assert ids[: sum(mask)] == row["ids"], row["text"]
        assert tokenizer.count(row["text"]) == len(row["ids"])


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {**NAMED, "extra_ids": 100, "added_tokens_decoder": listed(180)}},
        {
            "tokenizer_config": {**NAMED, "additional_special_tokens": EXTRA, "tokenizer_class": "T5Tokenizer"},
            "special_tokens_map": {**NAMED, "additional_special_tokens": EXTRA},
            "added_tokens": {text: 279 - i for i, text in enumerate(EXTRA)},
        },
        {"special_tokens_map": {name: described(text) for name, text in NAMED.items()}},
    ],
    ids=["as CogVideoX ships it", "older", "only the map"],
)
def test_files_beside_spiece_model_that_say_the_usual_change_nothing(tmp_path: Path, files: dict[str, object]) -> None:
    tokenizer = open_tokenizer(spiece_folder(tmp_path, **files))
    assert [tokenizer.ids(row["text"], len(row["ids"]))[0] for row in RECORDED["plain"]] == [
        row["ids"] for row in RECORDED["plain"]
    ]


def test_saved_t5_tokenizer_gives_the_ids_of_transformers(tmp_path: Path, reference: T5Tokenizer) -> None:
    reference.save_pretrained(tmp_path)
    own, oracle = open_tokenizer(tmp_path), T5Tokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        for length in (1, 2, 5, 64):
            assert_same_ids(own, oracle, text, length)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.sampled_from("abe éüß猫桜🦊<>/_▁ \n\t\u00a0½ﬁ.,0１") | st.characters(codec="utf-8"), max_size=60)
)
def test_any_text_gives_the_ids_of_transformers(
    tmp_path_factory: pytest.TempPathFactory, reference: T5Tokenizer, text: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any_text"
    own = open_tokenizer(folder if folder.exists() else spiece_folder(folder))
    assert_same_ids(own, reference, text, 24)


def test_t5_reads_no_more_of_tokenizer_json_than_transformers_does(tmp_path: Path, reference: T5Tokenizer) -> None:
    reference.save_pretrained(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}
    document["normalizer"] = {"type": "Sequence", "normalizers": [document["normalizer"], spaces]}
    document["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    document["model"]["unk_id"] = 3
    with_files(tmp_path, tokenizer=document)
    own, oracle = open_tokenizer(tmp_path), T5Tokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert_same_ids(own, oracle, text, 64)


def test_tokenizer_of_no_family_is_taken_as_saved(tmp_path: Path, reference: T5Tokenizer) -> None:
    PreTrainedTokenizerFast(tokenizer_object=reference.backend_tokenizer, **NAMED).save_pretrained(tmp_path)
    own, oracle = open_tokenizer(tmp_path), PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for text in TEXTS:
        assert_same_ids(own, oracle, text, 64)


def test_new_special_tokens_get_the_ids_of_transformers(tmp_path: Path, reference: T5Tokenizer) -> None:
    reference.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    with_files(tmp_path, tokenizer_config=config | {"extra_special_tokens": ["<one>", "<two>"], "bos_token": "<s>"})
    own, oracle = open_tokenizer(tmp_path), T5Tokenizer.from_pretrained(tmp_path)
    for text in ("a <two> fox<one>", "<s>a red fox</s>"):
        assert_same_ids(own, oracle, text, 24)


def test_long_text_is_cut_before_its_end_token(tmp_path: Path) -> None:
    tokenizer = open_tokenizer(spiece_folder(tmp_path))
    text = "a red fox " * 20_000
    ids, mask = tokenizer.ids(text, 226)
    assert (len(ids), ids[-1], all(mask)) == (226, 1, True)
    assert tokenizer.count(text) > 60_000


def test_padding_is_counted_out(tmp_path: Path) -> None:
    tokenizer = open_tokenizer(spiece_folder(tmp_path))
    ids, mask = tokenizer.ids("", 4)
    assert (ids, mask) == ([1, 0, 0, 0], [True, False, False, False])
    assert tokenizer.count("") == 1


def test_spiece_model_is_read_without_sentencepiece_or_protobuf(tmp_path: Path) -> None:
    blocked = dict.fromkeys(("sentencepiece", "google.protobuf", "tiktoken", "transformers", "torch"))
    program = (
        f"import sys, pathlib; sys.modules.update({blocked})\n"
        "from sora_cli.engine.tokens import open_tokenizer\n"
        f"print(open_tokenizer(pathlib.Path({str(spiece_folder(tmp_path))!r})).ids('a', 2)[0])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == next(row["ids"] for row in RECORDED["plain"] if row["text"] == "a")


def field(number: int, content: bytes) -> bytes:
    """A protobuf field of less than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def piece(text: bytes, score: float = 0.0) -> bytes:
    return field(1, field(1, text) + b"\x15" + struct.pack("<f", score))


def whole(folder: Path) -> bytes:
    return (FIXTURES / "plain.model").read_bytes()


HOSTILE: dict[str, tuple[str, Callable[[Path], bytes], str]] = {
    "no model": ("other.txt", lambda _: b"", "neither tokenizer.json nor spiece.model"),
    "empty": ("spiece.model", lambda _: b"", "it has 0 pieces"),
    "cut off": ("spiece.model", lambda folder: whole(folder)[:1000], "it is cut off"),
    "a web page": ("spiece.model", lambda _: b"<html>not found</html>", "it"),
    "endless number": ("spiece.model", lambda _: b"\xff" * 40, "a number without end"),
    "no number for a score": ("spiece.model", lambda _: piece(b"a", float("nan")), "score nan"),
    "empty piece": ("spiece.model", lambda _: piece(b""), "piece ''"),
    "no UTF-8": ("spiece.model", lambda _: piece(b"\xff"), "it holds no tokenizer"),
    "byte pairs": ("spiece.model", lambda _: piece(b"a") + field(2, b"\x18\x02"), "not a unigram model"),
    "no JSON": ("tokenizer.json", lambda _: b"{", "tokenizer.json is no JSON"),
    "a list": ("tokenizer.json", lambda _: b"[]", "tokenizer.json is no JSON object"),
    "deep": ("tokenizer.json", lambda _: b"[" * 100_000, "tokenizer.json is no JSON"),
    "no vocabulary": ("tokenizer.json", lambda _: b'{"version": "1.0"}', "it holds no tokenizer"),
    "words for scores": ("tokenizer.json", lambda _: b'{"model": {"vocab": [["a", "b"]]}}', "could not convert"),
    "other family": ("tokenizer_config.json", lambda _: b'{"tokenizer_class": "BertTokenizer"}', "BertTokenizer"),
    "absurd extra ids": ("tokenizer_config.json", lambda _: b'{"extra_ids": 1e99}', "extra_ids is 1e"),
    "left padding": ("tokenizer_config.json", lambda _: b'{"padding_side": "left"}', "on the left"),
}


@pytest.mark.parametrize(("name", "content", "problem"), HOSTILE.values(), ids=HOSTILE.keys())
def test_broken_folder_is_refused_in_one_line_that_names_it(
    tmp_path: Path, name: str, content: Callable[[Path], bytes], problem: str
) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / name).write_bytes(content(folder))
    with pytest.raises(WeightsError, match=problem) as refused:
        open_tokenizer(folder)
    assert refused.value.code == "bad_weights"
    assert refused.value.message.startswith(f"{folder}: ")
    assert "\n" not in refused.value.message


def test_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "tokenizer.json", "wb") as file:
        file.truncate(2**34)
    with pytest.raises(WeightsError, match="more than 64 MiB"):
        open_tokenizer(tmp_path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_spiece_model_gives_ids_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    content = bytearray((FIXTURES / "plain.model").read_bytes())
    places = st.integers(0, len(content) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)):
        content[place] = byte
    folder.mkdir(exist_ok=True)
    (folder / "spiece.model").write_bytes(content)
    try:
        ids, _ = open_tokenizer(folder).ids("ＡＢ½ﬁ é 猫", 16)
    except WeightsError as refused:
        assert "\n" not in refused.message
    else:
        assert len(ids) == 16


def test_charsmap_of_tokenizer_json_must_be_base64(tmp_path: Path, reference: T5Tokenizer) -> None:
    reference.save_pretrained(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    for table in ("!!", base64.b64encode(b"\x00").decode(), 7):
        document["normalizer"]["precompiled_charsmap"] = table
        with pytest.raises(WeightsError):
            open_tokenizer(with_files(tmp_path, tokenizer=document))
