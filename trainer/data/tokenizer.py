"""The SentencePiece BPE tokenizer: training it, and refusing one whose bytes could not be counted."""

import io
import re
from collections.abc import Sequence

import sentencepiece

from codec.errors import InputError, UsageError

PAD, BOS, EOS, UNKNOWN = 0, 1, 2, 3
SPACE = "\u2581"
MAX_VOCAB = 2**16  # shards store uint16 ids


def train_tokenizer(documents: Sequence[str], vocab_size: int, *, or_fewer: bool = False) -> bytes:
    """documents: training text -> the content of a `.model` file; equal for equal sets of documents.

    BPE with byte fallback, digits split, NFKC, no space put in front, ids pad 0, bos 1, eos 2, unknown 3.
    or_fewer: of a text too small for the vocabulary, take as many pieces as it yields.

    Raises: UsageError for a vocabulary that is too small for 256 bytes and the text's characters, too large
    for the text, or beyond uint16.
    """
    if vocab_size > MAX_VOCAB:
        raise UsageError(
            f"a vocabulary of {vocab_size} was asked for, shards hold {MAX_VOCAB} (uint16 ids)",
            hint=f"choose --vocab-size {MAX_VOCAB} or less",
        )
    model = io.BytesIO()
    try:
        # An iterator and a writer: file names would be stored in the model and change its bytes.
        # Sorted documents and one thread: ties between merges must not depend on order or timing.
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sorted(documents)),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="nmt_nfkc",
            add_dummy_prefix=False,
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNKNOWN,
            required_chars=SPACE,  # a space without a piece of its own would be counted as 3 bytes (E2 96 81)
            max_sentence_length=2**30,  # the default of 4192 bytes silently skips every longer document
            num_threads=1,
            minloglevel=3,
        )
    except RuntimeError as error:
        most = re.search(r"value <= (\d+)", str(error))  # SentencePiece states the possible sizes only in its message
        if most and or_fewer:
            return train_tokenizer(documents, int(most[1]))
        raise _training_error(str(error), vocab_size, most and most[1]) from None
    load_tokenizer(model.getvalue(), "the trained tokenizer")
    return model.getvalue()


def load_tokenizer(model: bytes, where: str) -> sentencepiece.SentencePieceProcessor:
    """The content of a `.model` file -> a processor whose tokens fit shards and can be counted in bytes.

    Raises: InputError for data that is no SentencePiece model, BOS that is not id 1, more than 65,536 pieces,
    no byte fallback, or no `▁` piece.
    """
    tokenizer = sentencepiece.SentencePieceProcessor()
    try:
        tokenizer.LoadFromSerializedProto(model)
    except RuntimeError:
        raise InputError("is not a SentencePiece model", where=where, hint="pass a .model file") from None
    size = tokenizer.vocab_size()
    byte_pieces = sum(tokenizer.is_byte(piece) for piece in range(size))
    wrong = ""
    if tokenizer.bos_id() != BOS:
        wrong = f"has BOS id {tokenizer.bos_id()}, documents are led by id {BOS}"
    elif size > MAX_VOCAB:
        wrong = f"has {size} pieces, shards hold at most {MAX_VOCAB} (uint16 ids)"
    elif byte_pieces != 256:
        wrong = f"has {byte_pieces} byte pieces, all 256 are needed so that every text can be written"
    elif tokenizer.piece_to_id(SPACE) == tokenizer.unk_id():
        wrong = f"has no piece {SPACE} of its own, so a lone space would count as 3 bytes"
    if wrong:
        raise InputError(wrong, where=where, hint="train a tokenizer with `pgolf data --vocab-size N`")
    return tokenizer


def _training_error(message: str, vocab_size: int, most: str | None) -> UsageError | InputError:
    if most:
        return UsageError(
            f"a vocabulary of {vocab_size} is too large, this text yields {most} pieces",
            hint=f"choose --vocab-size {most} or less, or more text",
        )
    if found := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return UsageError(
            f"a vocabulary of {vocab_size} is too small, 4 control pieces, 256 bytes and the "
            f"characters of this text need {found[1]}",
            hint=f"choose --vocab-size {found[1]} or more",
        )
    return InputError(f"SentencePiece cannot train on this text ({message.strip()[:200]})")
