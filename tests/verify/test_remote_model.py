"""What the process of a submission answers is checked before it is believed: messages, shapes, words about itself."""

import io
import json
import os
import struct

import numpy as np
import pytest
import torch

from codec.errors import InputError, LimitError
from verify.sandbox import wire
from verify.sandbox.remote_model import Remote

CONFINED = {"kind": "confined", "missing": []}
LOADED = {"kind": "loaded", "state": {}, "length": None, "notes": []}


def frame(message, arrays=0, rest=b""):
    text = json.dumps(message).encode()
    return struct.pack("<II", len(text), arrays) + text + rest


def remote(*frames, confined=CONFINED):
    return Remote(io.BytesIO(), io.BytesIO(b"".join([frame(confined), *frames])), "train_gpt.py")


def logits(array, **changes):
    sink = io.BytesIO()
    wire.send(sink, {"kind": "logits", **changes}, array)
    return sink.getvalue()


def test_messages_come_through_as_they_were_sent():
    read, write = os.pipe()
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    with os.fdopen(read, "rb") as source, os.fdopen(write, "wb") as sink:
        wire.send(sink, {"kind": "x", "text": "\u00fc"})
        wire.send(sink, {"kind": "y"}, array.transpose(0, 2, 1))
        wire.send(sink, {"kind": "z"}, np.zeros((0, 5), np.int64))
        assert wire.receive(source) == ({"kind": "x", "text": "\u00fc"}, None)
        message, got = wire.receive(source, "float32", 96)
        assert message["kind"] == "y"
        assert np.array_equal(got, array.transpose(0, 2, 1))
        assert wire.receive(source, "int64", 0)[1].shape == (0, 5)
        wire.send(sink, {}, array)
        with pytest.raises(InputError, match="need float32 of at most 95 bytes"):
            wire.receive(source, "float32", 95)


@pytest.mark.parametrize("length", [0, 3, 8, 20])
def test_a_cut_message_is_an_end(length):
    with pytest.raises(EOFError):
        wire.receive(io.BytesIO(frame({"kind": "loaded", "notes": []})[:length]))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (frame({"kind": "score", "nats": 1.0}), "says None about its model"),
        (frame({**LOADED, "length": -5}), "says -5 about the tokens of its windows"),
        (frame({**LOADED, "length": 10**13}), "says 10000000000000 about the tokens of its windows"),
        (frame({**LOADED, "lacks": ["slot"]}), "says .*slot.* about its model"),
        (frame({**LOADED, "state": {"table": {"dtype": 3}}}), "says .*dtype.* about its model"),
        (frame([1, 2]), "something else than messages"),
        (frame(LOADED, arrays=7), "something else than messages"),
        (frame({**LOADED, "shape": [1 << 30, 1 << 30], "dtype": "float32"}, 1), "answers with an array"),
        (b"\xff\xff\xff\xff\0\0\0\0", "something else than messages"),
        (b"\2\0\0\0\0\0\0\0\xff\xff", "something else than messages"),
        (struct.pack("<II", 200_000, 0) + b"[" * 200_000, "something else than messages"),
    ],
)
def test_what_it_says_of_itself_is_checked(answer, words):
    with pytest.raises(InputError, match=words) as error:
        remote(answer)
    assert error.value.where == "train_gpt.py"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (frame({"kind": "logits"}), "logits have shape None for the last 3 of 2 x 3 inputs"),
        (logits(np.zeros((2, 2, 5), np.float32)), r"logits have shape \(2, 2, 5\)"),
        (logits(np.zeros((2, 3), np.float32)), r"logits have shape \(2, 3\)"),
        (logits(np.zeros((2, 3, 5))), "answers with an array of float64"),
        (frame({"kind": "logits", "shape": [2, 3, -1], "dtype": "float32"}, 1), "answers with an array"),
        (frame({"kind": "logits", "shape": [2, 3, 1 << 30], "dtype": "float32"}, 1), "at most 2,147,483,648 bytes"),
        (frame({"kind": "logits", "shape": [True, 3, 5], "dtype": "float32"}, 1), "answers with an array"),
    ],
)
def test_logits_are_checked(answer, words):
    model = remote(frame(LOADED), answer)
    with pytest.raises(InputError, match=words):
        model.logits(torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("first", [LOADED, {"kind": "confined"}, {"kind": "confined", "missing": "none"}])
def test_what_the_sandbox_lacks_is_told_first(first):
    with pytest.raises(InputError, match="about its sandbox"):
        remote(frame(LOADED), confined=first)


def test_its_errors_are_one_printable_line_with_what_was_refused():
    answer = {"kind": "error", "class": "LimitError", "message": "too \33[2Jmuch" + "!" * 5000, "hint": "less"}
    with pytest.raises(LimitError) as error:
        remote(frame({**answer, "attempts": ["opened x\7", 3]}))
    assert str(error.value).startswith("train_gpt.py: too ?[2Jmuch!!!")
    assert str(error.value).endswith("; the sandbox refused: opened x?; 3; less")
    assert len(str(error.value)) < 1200
    with pytest.raises(InputError):
        remote(frame({**answer, "class": "SystemExit"}))


def test_what_it_said_can_be_asked():
    model = remote(
        frame({**LOADED, "length": 7, "notes": ["a", "b"], "missing": [], "lacks": {"slot": "no\7 head"}}),
        frame({"kind": "attempts", "attempts": ["d"]}),
        confined={"kind": "confined", "missing": ["c"]},
    )
    model.refresh()
    assert (model.length, model.notes, model.missing, model.attempts) == (7, ["a", "b"], ["c"], ["d"])
    assert model.lacks == {"slot": "no? head"}


def test_words_go_along_with_what_is_asked():
    requests = io.BytesIO()
    answer = logits(np.zeros((1, 2, 5), np.float32))
    model = Remote(requests, io.BytesIO(b"".join([frame(CONFINED), frame(LOADED), answer])), "train_gpt.py")
    shifted = model.asked(slot={"steps": 5})
    shifted.head(shifted.hidden(torch.zeros(1, 3, dtype=torch.int64))[:, 1:])
    requests.seek(0)
    sent, _ = wire.receive(requests, "int64", 1000)
    assert {key: sent[key] for key in ("kind", "first", "slot")} == {
        "kind": "logits",
        "first": 1,
        "slot": {"steps": 5},
    }
