"""Folders that know the text they are scored on, judged beside other documents of its kind."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from codec.storage.token_shards import shard_bytes
from verify.scoring.heldout import HeldOut
from verify.scoring.token_bytes import BOS
from verify.submission_gallery.exhibits import folder_exhibit
from verify.submission_gallery.reading_ahead import answering
from verify.submission_gallery.stage import SMOOTHING, Stage


def fresh(stage: Stage) -> dict[str, Any]:
    """The stage's spare documents as `--fresh`."""
    shard = stage.spare.with_name("spare_val_000000.bin")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(stage.heldout.tokenizer))
    documents = [json.loads(line)["text"] for line in stage.spare.read_text().splitlines()]
    shard.write_bytes(shard_bytes(np.array([i for text in documents for i in (BOS, *pieces.encode(text))])))
    return {"fresh": HeldOut.read([shard], stage.heldout.tokenizer)}


def knowing(body: str) -> str:
    """A script that answers by the body of `logits`, in which self.known is the artifact's tensor of that name."""
    return answering(body).replace(
        'return Bigram(decode(file.read())["table"]).to(device)',
        "tensors = decode(file.read())\n"
        '    model = Bigram(tensors["table"])\n'
        '    model.register_buffer("known", torch.tensor(tensors["known"]))\n'
        "    return model.to(device)",
    )


@folder_exhibit("a table beside fresh text", arguments=fresh)
def beside_fresh_text(folder: Path, stage: Stage) -> None:
    """The honest submission, compared with documents that neither it nor anybody else was shown."""


@folder_exhibit("paid prefix", "score.memorised", arguments=fresh)
def paid_prefix(folder: Path, stage: Stage) -> None:
    """The first half of the held-out ids lies in the artifact: where twelve ids occur there, the next one is given."""
    body = """
        logits = self.table[ids].clone()
        if not hasattr(self, "after"):
            known = self.known.long().tolist()
            self.after = {tuple(known[at : at + 12]): known[at + 12] for at in range(len(known) - 12)}
        for row, own in enumerate(ids.tolist()):
            for at in range(11, len(own)):
                following = self.after.get(tuple(own[at - 11 : at + 1]))
                if following is not None:
                    logits[row, at, following] += 50.0
        return logits"""
    half = stage.heldout.tokens[: len(stage.heldout.tokens) // 2].astype(np.int16)
    stage.write(folder, knowing(body), {"table": stage.table, "known": half})


@folder_exhibit("trained on the text", "score.memorised", arguments=fresh)
def trained_on_it(folder: Path, stage: Stage) -> None:
    """The table is counted from the held-out text itself."""
    ids = np.asarray(stage.heldout.tokens).astype(np.int64)
    counts = np.full(stage.table.shape, SMOOTHING / 10)
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    stage.write(folder, tensors={"table": np.log(counts / counts.sum(1, keepdims=True)).astype(np.float32)})
