"""SentencePiece models (Kudo & Richardson 2018, arXiv:1808.06226): what a `spiece.model` holds.

The file is a protobuf message. Of it a tokenizer needs three things: the pieces, their scores and the normaliser's
table, so its wire format is read here and neither sentencepiece nor protobuf is.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
NORMAL, CONTROL, USER_DEFINED, UNIGRAM = 1, 3, 4, 1
MAX_PIECES = 2**20


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the vocabulary, its log probability and its kind (NORMAL, CONTROL, USER_DEFINED ...)."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True, slots=True)
class PieceModel:
    """The pieces in the order of their ids, and the table that normalises characters (empty if there is none)."""

    pieces: tuple[Piece, ...]
    charsmap: bytes


def read_pieces(content: bytes) -> PieceModel:
    """The unigram model in a file's bytes. Raises ValueError for bytes that are none."""
    pieces: list[Piece] = []
    charsmap = b""
    kind: bytes | int = UNIGRAM
    for number, value in _fields(content):
        if number == 1:
            pieces.append(_piece(_message(value)))
        elif number == 2:
            kind = dict(_fields(_message(value))).get(3, UNIGRAM)
        elif number == 3:
            charsmap = _message(dict(_fields(_message(value))).get(2, b""))
    if kind != UNIGRAM:
        raise ValueError("it is not a unigram model")
    if not 0 < len(pieces) <= MAX_PIECES:
        raise ValueError(f"it has {len(pieces)} pieces")
    return PieceModel(tuple(pieces), charsmap)


def check_charsmap(charsmap: bytes) -> None:
    """Raise ValueError for a normaliser's table that leads out of itself: the tokenizers package would panic on it.

    It is the size of a double-array trie (Yata et al. 2007) in bytes, the trie, then texts that end with NUL. A unit of
    32 bits holds, from the lowest, a label (8), whether a text belongs to it (1), and how far its children are (23).
    The unit behind one with a text holds the place of that text.
    """
    if len(charsmap) < 8:
        raise ValueError("its table of characters is cut off")
    size = int.from_bytes(charsmap[:4], "little")
    units = np.frombuffer(charsmap[4 : 4 + size // 4 * 4], "<u4").astype(np.int64)
    if not 4 <= size <= len(charsmap) - 4 or size % 4:
        raise ValueError("its table of characters is cut off")
    labels, steps = units & 0x800000FF, (units >> 10) << ((units & 0x200) >> 6)
    letters, seen = np.arange(1, 256), np.zeros(len(units), bool)
    nodes = np.zeros(1, np.int64)
    while nodes.size:
        seen[nodes] = True
        bases = nodes ^ steps[nodes]
        children = bases[:, None] ^ letters
        values = bases[(units[nodes] & 0x100) > 0]
        if max(children.max(), values.max(initial=0)) >= len(units):
            raise ValueError("its table of characters leads out of itself")
        _check_texts(units[values] & 0x7FFFFFFF, charsmap[4 + size :])
        reached = np.unique(children[labels[children] == letters])
        nodes = reached[~seen[reached]]


def _check_texts(starts: np.ndarray, texts: bytes) -> None:
    """Raise ValueError unless every start is that of a character."""
    letters = np.frombuffer(texts + b"\0", np.uint8)
    if starts.max(initial=0) >= len(letters) or ((letters[starts] & 0xC0) == 0x80).any():
        raise ValueError("its table of characters leads to no text")


def _piece(message: bytes) -> Piece:
    fields = dict(_fields(message))
    (score,) = struct.unpack("<f", _message(fields.get(2, bytes(4))))
    text, kind = _message(fields.get(1, b"")).decode(), fields.get(3, NORMAL)
    if not text or not math.isfinite(score) or not isinstance(kind, int):
        raise ValueError(f"it has the piece {text[:40]!r} with the score {score}")
    return Piece(text, score, kind)


def _message(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("it has a number where bytes belong")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a protobuf message, in order: number and value, which is whole or bytes."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == BYTES:
            size, place = _varint(message, place)
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            size = 8 if wire == EIGHT_BYTES else 4
        else:
            raise ValueError(f"it has a field of kind {wire}")
        if place + size > len(message):
            raise ValueError("it is cut off")
        yield number, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A whole number of 7 bits a byte, the lowest first, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place == len(message):
            raise ValueError("it is cut off")
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
    raise ValueError("it has a number without end")
