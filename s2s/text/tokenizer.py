"""Subword tokenizers (the only file that knows sentencepiece), and tokenizers to and from the files of a bundle."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import random
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import sentencepiece as spm

from s2s.errors import BundleError, ConfigError, DataError
from s2s.text.sampling import DropoutSampler, Sampler, UnigramSampler
from s2s.text.vocabulary import MAX_SIZE, Recipe, Tokenizer, composed, parse_vocabulary, word_indices
from s2s.types import BOS, EOS, PAD, SPECIALS, UNK

_SPACE = "▁"  # U+2581, how sentencepiece writes a space
_BLOCK = "▅"  # U+2585, which its trainer keeps for itself: it skips every line that holds one
_SKIPPED = frozenset((PAD, BOS, EOS))
_SAMPLED_WORD = re.compile("▁[^▁]{0,63}|[^▁]{1,64}")  # at most 64 characters: sampling takes the longer in stretches
# At most 1000 characters, up to a space if there is one: the trainer skips lines of more than 4192 bytes, and takes
# quadratic time for long ones. Its pieces never cross a space, so nothing is lost.
_TRAINING_LINE = re.compile(r".{1,999}(?:\s|\Z)|.{1000}", re.DOTALL)
_log = logging.getLogger(__name__)

spm.set_min_log_level(2)  # errors come as exceptions; the rest is not for the user


class SentencePiece:
    """A sentencepiece model (unigram or BPE), normalisation included.

    Texts are put into Unicode normal form C and then normalised by the model's own rules: NFKC, runs of whitespace to
    one space, none at the ends. With byte fallback `decode(encode(text))` is that normalised text, whatever it holds.
    """

    def __init__(self, model: bytes, *, where: str = "sentencepiece model") -> None:
        """model: a serialised model, which may come from elsewhere. where: named by BundleError if it is no good."""
        self._model, self._names, all_scores = _load_model(model, where)
        self._content = model
        self._digest = hashlib.sha256(model).hexdigest()
        self._marks = [None if number in _SKIPPED else _mark(name) for number, name in enumerate(self._names)]
        bytewise = {number for number in range(self.size) if self._model.is_byte(number)}
        self._byte_ids = {self._names[number]: number for number in bytewise}
        self._piece_ids = {
            name: number
            for number, name in enumerate(self._names)
            if number >= len(SPECIALS) and number not in bytewise and not self._model.is_unused(number)
        }
        scores = {name: all_scores[number] for name, number in self._piece_ids.items()}
        # BPE scores its pieces 0, -1, -2, ..., in the order of the merges; log-probabilities are never that
        bpe = sorted(scores.values(), reverse=True) == [-rank for rank in range(len(scores))]
        self._sampler: Sampler = DropoutSampler(scores) if bpe else UnigramSampler(scores)

    @property
    def size(self) -> int:
        """Number of ids, the special ones included."""
        return len(self._names)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the model's bytes."""
        return self._digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SentencePiece) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return f"SentencePiece(size={self.size}, sha256={self._digest[:12]})"

    def __reduce__(self) -> tuple[type[SentencePiece], tuple[bytes]]:
        return SentencePiece, (self._content,)

    def normalise(self, text: str) -> str:
        """The text as the model sees it, and as `decode(encode(text))` gives it back."""
        normal: str = self._model.normalize(composed(text))
        return normal.replace(_SPACE, " ").removeprefix(" ")

    def encode(self, text: str) -> list[int]:
        """Ids of the best segmentation. Time is linear in the text (1 MB: a third of a second)."""
        ids: list[int] = self._model.encode(composed(text))
        return ids

    def sample(self, text: str, alpha: float, seed: int) -> list[int]:
        """Ids of one random segmentation, a function of (text, alpha, seed) and the model alone.

        Unigram: drawn from all segmentations in proportion to probability ** alpha, so less alpha is more random
        (Kudo 2018, arXiv 1804.10959; 0.1 to 0.5 are usual). BPE: every merge is left out with probability alpha, so
        more alpha is more random (BPE-dropout, Provilkov et al. 2020, arXiv 1910.13267; 0.1 is usual).
        alpha 0: no sampling, the same as `encode`. Words of more than 64 characters are cut into stretches first.
        """
        if not 0 <= alpha < math.inf:
            raise ConfigError("wrong alpha of subword sampling", expected="0 or more", found=str(alpha))
        if alpha == 0:
            return self.encode(text)
        text = composed(text)
        key = hashlib.blake2b(f"{seed}\n{text}".encode(), digest_size=8).digest()
        uniform = random.Random(int.from_bytes(key, "little")).random
        ids: list[int] = []
        for word in _SAMPLED_WORD.findall(self._model.normalize(text)):
            for piece in self._sampler(word, alpha, uniform):
                number = self._piece_ids.get(piece)
                if number is not None:
                    ids.append(number)
                elif self._byte_ids:
                    ids += [self._byte_ids[f"<0x{byte:02X}>"] for byte in piece.encode()]
                elif ids[-1:] != [UNK]:  # a run of unknown characters is one id, as in `encode`
                    ids.append(UNK)
        return ids

    def decode(self, ids: Sequence[int], extra: Sequence[str] = ()) -> str:
        """Text of ids, always one line. PAD, BOS and EOS are skipped, UNK is shown as `<unk>`.

        Bytes that make no character are shown as U+FFFD, and a line feed that was put together from bytes as a space.
        extra: there is none, for no id can be told apart from UNK.
        """
        text: str = self._model.decode([int(number) for number in ids if number not in _SKIPPED])
        return text.replace("\n", " ")

    def spelled(self, text: str) -> None:
        """Nothing: a run of unknown characters is one id, and with byte fallback there is none."""
        return None

    def pieces(self, ids: Sequence[int], extra: Sequence[str] = ()) -> list[str]:
        """One readable piece for each id: `▁` stands for a space, `<0xC3>` for a byte."""
        return [self._names[number] for number in ids]

    def words(self, ids: Sequence[int]) -> list[int]:
        """The index of the word that each id belongs to, or -1; see `Tokenizer.words`."""
        return word_indices(self._marks[number] for number in ids)

    def unknown(self, text: str) -> int:
        """How many characters of the normalised text have no id; none with byte fallback."""
        if self._byte_ids:
            return 0
        text = composed(text)
        shown = self._model.encode(text, out_type=str)
        return sum(len(piece) for number, piece in zip(self.encode(text), shown, strict=True) if number == UNK)

    def files(self, prefix: str) -> dict[str, bytes]:
        """`<prefix>.spm`: the model as sentencepiece writes it."""
        return {f"{prefix}.spm": self._content}


def train_sentencepiece(
    texts: Sequence[str],
    *,
    kind: Literal["unigram", "bpe"] = "unigram",
    size: int = 8000,
    byte_fallback: bool = True,
    lowercase: bool = False,
    coverage: float = 0.9995,
    sentences: int = 1_000_000,
) -> SentencePiece:
    """Train a model on texts, in this process; the same texts and options give the same bytes.

    Options: see `sentencepiece`. A vocabulary larger than the texts can fill comes out smaller, with a warning.
    Raises DataError where there is no text, ConfigError where `size` can't hold the characters.
    """
    used = _evenly(texts, sentences)
    lines = [line for text in used for line in _TRAINING_LINE.findall(composed(text).replace(_BLOCK, " "))]
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=kind,
            vocab_size=size,
            hard_vocab_limit=False,
            byte_fallback=byte_fallback,
            character_coverage=coverage,
            normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
            num_threads=1,  # the sums of several threads differ in the last bits
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            unk_surface=SPECIALS[UNK],
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _training_error(str(error), len(texts), size) from error
    tokenizer = SentencePiece(model.getvalue())
    if tokenizer.size < size:
        _log.warning("text.size=%d is more than the texts fill: the vocabulary has %d pieces", size, tokenizer.size)
    return tokenizer


def sentencepiece(
    *,
    kind: Literal["unigram", "bpe"] = "unigram",
    size: int = 8000,
    joint: bool = False,
    byte_fallback: bool = True,
    lowercase: bool = False,
    coverage: float = 0.9995,
    sentences: int = 1_000_000,
) -> Recipe:
    """Builder of `text=sentencepiece`.

    kind: unigram (Kudo 2018, arXiv 1804.10959) or bpe (Sennrich et al. 2016, arXiv 1508.07909). size: most pieces,
    special ones and 256 bytes included. joint: one model for source and target. byte_fallback: what has no piece is
    spelled in UTF-8 bytes, so nothing is unknown. lowercase: fold case. coverage: share of the characters of the
    training texts that must have a piece of their own. sentences: most lines to train on, evenly spaced.
    Raises ConfigError.
    """
    if not len(SPECIALS) < size <= MAX_SIZE:
        raise ConfigError("wrong size", where="text.size", expected=f"5 to {MAX_SIZE}", found=str(size))
    if not 0.98 <= coverage <= 1:
        raise ConfigError("wrong share", where="text.coverage", expected="0.98 to 1", found=str(coverage))
    if sentences < 1:
        raise ConfigError("wrong count", where="text.sentences", expected="at least 1", found=str(sentences))
    options = {
        "kind": kind,
        "size": size,
        "byte_fallback": byte_fallback,
        "lowercase": lowercase,
        "coverage": coverage,
        "sentences": sentences,
    }
    return Recipe(partial(train_sentencepiece, **options), joint)  # type: ignore[arg-type]


def dump(source: Tokenizer, target: Tokenizer) -> dict[str, bytes]:
    """The files that a bundle keeps of its tokenizers: `shared.*` where both sides have the same, else one a side."""
    if source.digest == target.digest:
        return source.files("shared")
    return source.files("source") | target.files("target")


def load(files: Mapping[str, bytes]) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizers of source and target from the files of a bundle; the same object twice where they are shared.

    files: contents by name, untrusted; names other than `source|target|shared` + `.spm|.json` are not looked at.
    Raises BundleError where one is missing, damaged or stands beside another that contradicts it.
    """
    found = {
        side: [name for name in (f"{side}.spm", f"{side}.json") if name in files]
        for side in ("shared", "source", "target")
    }
    counts = tuple(len(names) for names in found.values())
    if counts not in ((1, 0, 0), (0, 1, 1)):
        raise BundleError(
            "can't tell which tokenizers the model has",
            expected="shared.spm, or source.spm and target.spm (.json for words and characters)",
            found=", ".join(name for names in found.values() for name in names) or "none of them",
        )
    loaded: list[Tokenizer] = []
    for names in found.values():
        for name in names:
            parse = parse_vocabulary if name.endswith(".json") else _parse_sentencepiece
            loaded.append(parse(files[name], name))
    return loaded[0], loaded[-1]


def _parse_sentencepiece(data: bytes, where: str) -> Tokenizer:
    return SentencePiece(data, where=where)


def _load_model(data: bytes, where: str) -> tuple[Any, list[str], list[float]]:
    """A processor, its pieces and their scores, for a model whose special ids are ours. Raises BundleError."""
    model = spm.SentencePieceProcessor()
    try:
        model.load_from_serialized_proto(data)
        size = model.get_piece_size()
        names = [model.id_to_piece(number) for number in range(min(size, MAX_SIZE))]
    except (RuntimeError, UnicodeDecodeError) as error:
        found = f"{len(data)} bytes"
        raise BundleError("is no sentencepiece model, or a damaged one", where=where, found=found) from error
    ids = (model.pad_id(), model.unk_id(), model.bos_id(), model.eos_id())
    if ids != (PAD, UNK, BOS, EOS) or size > MAX_SIZE:
        raise BundleError(
            "is no sentencepiece model of this package",
            where=where,
            expected=f"ids 0, 1, 2, 3 for {', '.join(SPECIALS)} and at most {MAX_SIZE} pieces",
            found=f"ids {', '.join(map(str, ids))} and {size} pieces",
        )
    scores = [float(model.get_score(number)) for number in range(size)]
    for number in range(len(SPECIALS), size):
        if model.is_control(number) or model.is_unknown(number) or not math.isfinite(scores[number]):
            raise BundleError(f"piece {number} of the sentencepiece model is special or has no score", where=where)
    if len({number for number in range(size) if model.is_byte(number)}) not in (0, 256):
        raise BundleError("the sentencepiece model has some bytes but not all", where=where)
    return model, names, scores


def _mark(name: str) -> tuple[bool, bool]:
    """Whether a space begins a piece and whether it shows anything else. Space and line feed also come as bytes."""
    if name in ("<0x20>", "<0x0A>"):
        return True, False
    return name.startswith(_SPACE), name.strip(_SPACE) != ""


def _evenly(texts: Sequence[str], most: int) -> Sequence[str]:
    if len(texts) <= most:
        return texts
    _log.warning("the vocabulary is trained on %d of %d texts, evenly spaced (text.sentences)", most, len(texts))
    return [texts[i * len(texts) // most] for i in range(most)]


def _training_error(message: str, texts: int, size: int) -> Exception:
    """What the user should read where the library's trainer gave up."""
    needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if needed:
        return ConfigError(
            "the vocabulary can't hold every character of the texts",
            where="text.size",
            expected=f"at least {needed.group(1)}",
            found=str(size),
            hint=f"Set text.size={needed.group(1)} or more, or a lower text.coverage.",
        )
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return DataError("no text to train a vocabulary on", found=f"{texts} texts, all of them blank")
    return DataError("the vocabulary can't be trained on these texts", found=message)
