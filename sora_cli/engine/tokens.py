"""Tokenizers of T5 text encoders, from the folders that checkpoints ship: `tokenizer.json` or `spiece.model` alone.

Both become the tokenizer that transformers 5.23 makes of them, built here from the `tokenizers` package so that neither
sentencepiece nor protobuf is needed.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.engine.pieces import CONTROL, USER_DEFINED, PieceModel, check_charsmap, read_pieces
from sora_weights.errors import WeightsError

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

MAX_BYTES = 64 * 2**20
MAX_EXTRA_IDS = 10_000
REMEDY = "use the model's own tokenizer folder"
REBUILT = ("T5Tokenizer", "T5TokenizerFast")
AS_SAVED = ("PreTrainedTokenizerFast", "TokenizersBackend")
UNKNOWN_ID = 2  # what transformers takes for every T5, wherever a file puts it
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
T5_NAMED = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


@dataclass(frozen=True, slots=True)
class PromptTokenizer:
    """A tokenizer that was opened. Its methods raise WeightsError("bad_weights") where its files turn out broken."""

    folder: Path
    backend: "Tokenizer"
    pad: str

    def ids(self, text: str, length: int) -> tuple[list[int], list[bool]]:
        """Exactly `length` ids of a text, and which of them are not padding.

        A longer text is cut; what ends every text, `</s>`, still ends it.
        """
        with _naming(self.folder):
            pad_id = self.backend.token_to_id(self.pad)
            self.backend.enable_truncation(length)
            self.backend.enable_padding(length=length, pad_id=pad_id, pad_token=self.pad)
            encoding = self.backend.encode(text)
        return encoding.ids, [bool(seen) for seen in encoding.attention_mask]

    def count(self, text: str) -> int:
        """How many ids a text has when nothing is cut, `</s>` included."""
        with _naming(self.folder):
            self.backend.no_truncation()
            self.backend.no_padding()
            return len(self.backend.encode(text).ids)


@dataclass(frozen=True, slots=True)
class _Files:
    """What a folder's JSON files hold; empty for those that it lacks."""

    config: Mapping[str, Any]
    special: Mapping[str, Any]
    added: Mapping[str, Any]
    saved: Mapping[str, Any]


def open_tokenizer(folder: Path) -> PromptTokenizer:
    """The tokenizer of a folder. Raises WeightsError("bad_weights") naming a folder that holds none, or a broken one.

    Token ids are those of the reference pipelines under transformers 5.23, which of a T5's tokenizer.json reads less
    than it says.
    """
    with _naming(folder):
        names = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json")
        files = _Files(*(_json(folder / name) for name in names))
        kind = files.config.get("tokenizer_class") or REBUILT[0]
        if kind not in REBUILT + AS_SAVED:
            raise ValueError(f"it is a {str(kind)[:80]}, no T5 tokenizer")
        if any(files.config.get(side, "right") != "right" for side in ("padding_side", "truncation_side")):
            raise ValueError("it pads or cuts on the left")
        return _saved(folder, files) if kind in AS_SAVED else _t5(folder, files)


def _saved(folder: Path, files: _Files) -> PromptTokenizer:
    """A tokenizer.json that means what it says."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    named = _named(files, {})
    backend.add_tokens(_added(files, named, files.config.get("extra_special_tokens") or ()))
    if "pad_token" not in named:
        raise ValueError("it has no pad_token")
    return PromptTokenizer(folder, backend, named["pad_token"].content)


def _t5(folder: Path, files: _Files) -> PromptTokenizer:
    """A T5 tokenizer: of a tokenizer.json only the pieces, the characters' table and the added tokens count."""
    extra = [f"<extra_id_{i}>" for i in range(_extra_ids(files))]
    if files.saved:
        vocabulary, charsmap = _pieces_of_json(files.saved)
        marks: Sequence[Any] = () if _lists_tokens(files) else files.special.get("additional_special_tokens") or ()
    else:
        model = read_pieces(_content(folder / "spiece.model"))
        vocabulary = [(piece.text, piece.score) for piece in model.pieces] + [(text, 0.0) for text in reversed(extra)]
        charsmap, marks = model.charsmap, _marks(model)
    listed = files.config.get("extra_special_tokens") or files.config.get("additional_special_tokens")
    named = _named(files, T5_NAMED)
    backend = _unigram(vocabulary, charsmap)
    backend.add_tokens(_added(files, named, listed or [*marks, *extra]))
    _end_with(backend, named["eos_token"].content)
    return PromptTokenizer(folder, backend, named["pad_token"].content)


def _extra_ids(files: _Files) -> int:
    count = files.config.get("extra_ids", 100)
    if type(count) is not int or not 0 <= count <= MAX_EXTRA_IDS:
        raise ValueError(f"extra_ids is {repr(count)[:80]}")
    return count


def _pieces_of_json(saved: Mapping[str, Any]) -> tuple[list[tuple[str, float]], bytes]:
    """The pieces with their scores, and the table of a Precompiled normaliser wherever it stands."""
    vocabulary = [(text, float(score)) for text, score in saved["model"]["vocab"]]
    normaliser = saved.get("normalizer") or {}
    steps = normaliser["normalizers"] if normaliser.get("type") == "Sequence" else [normaliser]
    tables = [step["precompiled_charsmap"] for step in steps if step.get("type") == "Precompiled"]
    return vocabulary, base64.b64decode(tables[0], validate=True) if tables else b""


def _marks(model: PieceModel) -> list["AddedToken"]:
    """Pieces that no letters make: control pieces, and the user's own."""
    from tokenizers import AddedToken

    return [
        AddedToken(piece.text, normalized=False, special=piece.kind == CONTROL)
        for piece in model.pieces
        if piece.kind in (CONTROL, USER_DEFINED)
    ]


def _unigram(vocabulary: list[tuple[str, float]], charsmap: bytes) -> "Tokenizer":
    """The most probable pieces of every word, words being what white space parts, each begun by a ▁."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    backend = Tokenizer(models.Unigram(vocabulary, UNKNOWN_ID, False))
    if charsmap:
        check_charsmap(charsmap)
        backend.normalizer = normalizers.Precompiled(charsmap)
    words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    return backend


def _end_with(backend: "Tokenizer", end: str) -> None:
    """Let every text end with a token."""
    from tokenizers import processors

    ending = (end, backend.token_to_id(end))
    backend.post_processor = processors.TemplateProcessing(single=["$A", end], special_tokens=[ending])


def _added(files: _Files, named: Mapping[str, "AddedToken"], more: Sequence[Any]) -> list["AddedToken"]:
    """The tokens to add, in the order in which new ones get their ids; the first of several of one text counts."""
    listed = [token for _, token in sorted(_listed(files).items(), key=itemgetter(0))]
    return [*listed, *named.values(), *map(_token, more)]


def _lists_tokens(files: _Files) -> bool:
    """Whether the config lists all added tokens; older folders spread them over more files."""
    return "added_tokens_decoder" in files.config


def _listed(files: _Files) -> dict[int, "AddedToken"]:
    """Added tokens by id."""
    from tokenizers import AddedToken

    if _lists_tokens(files):
        return {int(index): _token(value) for index, value in files.config["added_tokens_decoder"].items()}
    special = {token.content for token in _named(files, {}).values()}
    special |= {_token(value).content for value in files.config.get("extra_special_tokens") or ()}
    old = {
        index: AddedToken(text, normalized=text not in special, special=text in special)
        for text, index in files.added.items()
    }
    return old | {value["id"]: _token(value) for value in files.saved.get("added_tokens", ())}


def _named(files: _Files, defaults: Mapping[str, str]) -> dict[str, "AddedToken"]:
    """The tokens with a part to play, by its name."""
    values = {**defaults, **files.config, **({} if _lists_tokens(files) else files.special)}
    return {name: _token(values[name], named=True) for name in NAMED if values.get(name) is not None}


def _token(value: Any, *, named: bool = False) -> "AddedToken":
    """An added token from its text, or from the object that describes it; a named one is special."""
    from tokenizers import AddedToken

    if isinstance(value, AddedToken):
        return value
    if isinstance(value, str):
        return AddedToken(value, special=True)
    flags = {name: value[name] for name in FLAGS if name in value}
    return AddedToken(value["content"], **(flags | {"special": True} if named else flags))


def _json(path: Path) -> dict[str, Any]:
    """The object in a file, or nothing where there is no such file."""
    if not path.is_file():
        return {}
    content = _content(path)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no JSON that can be read") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return value


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError("it holds neither tokenizer.json nor spiece.model")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.name} has more than {MAX_BYTES >> 20} MiB")
    return path.read_bytes()


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Turn whatever goes wrong into the one line that names the folder."""
    try:
        yield
    except (WeightsError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers package is no Exception
        text = " ".join(str(error).split())[:200]
        problem = text if type(error) is ValueError else f"it holds no tokenizer ({type(error).__name__}: {text})"
        raise WeightsError("bad_weights", f"{folder}: {problem}", REMEDY) from error
