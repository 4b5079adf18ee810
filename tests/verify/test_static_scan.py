"""The static scan: what the reviewers' list names is found with its line, what they call false alarms is not."""

import base64
import lzma
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from packager.script.wrapper import wrap
from tests.conftest import ROOT
from tests.verify.conftest import BIGRAM
from tests.verify.measured import FACTS
from tests.verify.test_source_layers import xz
from verify.folder_rules import check_scan
from verify.rules import RULES
from verify.submission.folder import Submission
from verify.submission.static_scan import MOST, scan, scan_submission

SEEDS = Path(__file__).parent / "seeds"


def triage(submission):
    """The findings about what the scan of a submission hits."""
    return check_scan(replace(FACTS, scan=scan_submission(submission)))


HITS = {
    "val-training": """
def adapt(model, val_tokens, optimizer):
    for epoch in range(3):
        x, y = val_tokens[:-1], val_tokens[1:]
        loss = model(x, y)
        loss.backward()  # HERE
        if epoch == len(val_tokens) - 1:
            break
""",
    "val-training through a helper": """
def step(model, ids, is_last_chunk=False):
    batch = ids.view(1, -1)
    model(batch[:, :-1], batch[:, 1:]).backward()  # HERE

def main(model, train_tokens, val_tokens):
    step(model, train_tokens)
    step(model, ids=val_tokens[:512])
""",
    "val-training by autograd": """
import torch
def slot(model, data, is_last):
    x = data.val_tokens[:64]
    delta = torch.zeros(8, requires_grad=True)
    (g,) = torch.autograd.grad(model(x, delta), delta)  # HERE
    return delta - g
""",
    "last-chunk": """
def ttt(model, val_tokens, num_chunks):
    for ci in range(num_chunks):
        lr = 0.5 / max(num_chunks - 1, 1)
        (lr * model(val_tokens[ci:])).backward()  # HERE
""",
    "scored-mask": """
def slot(model, optimizer, mask, x, s, wlen):
    for i in range(8):
        mask[i, s:wlen] = 1.0  # HERE
    (model(x) * mask).sum().backward()
""",
    "target-hash": """
def cache(table, context, targets):
    key = (context * 36313) ^ targets  # HERE
    return table[key]
""",
    "target-hash by modulus": """
def cache(table, ctx, tgt, size):
    return table[(ctx * 31 + tgt) % size]  # HERE
""",
    "target-hash by function": """
import numpy as np
def cache(table, ctx, labels):
    return table[np.bitwise_xor(ctx, labels)]  # HERE
""",
    "network": "import urllib.request  # HERE",
    "network from": "from huggingface_hub import hf_hub_download  # HERE",
    "process": "import subprocess  # HERE",
    "process by os": "import os\nos.system('curl x')  # HERE",
    "pickle": "import pickle  # HERE",
    "pickle by torch": "import torch\ntorch.load('final_model.int6.ptz', weights_only=False)  # HERE",
    "native": "from torch.utils.cpp_extension import load_inline  # HERE",
    "dynamic": "def f(x):\n    return eval(x)  # HERE",
    "reads": "answers = open('answers.npy', 'rb').read()  # HERE",
    "reads by path": "from pathlib import Path\nx = Path('/data/cache.json').read_text()  # HERE",
    "blob": f"table = {'Zm9v' * 400!r}  # HERE",
    "environment": "import os\ndef f():\n    return os.environ.get('SECRET')  # HERE",
    "environment (beside a launcher's variable)": (
        "import os\ndef f():\n    return os.environ.get('RANK') or os.environ.get('SECRET')  # HERE"
    ),
}


@pytest.mark.parametrize("name", HITS)
def test_each_pattern_is_found_at_its_line(name):
    text = HITS[name].lstrip("\n")
    line = next(number for number, each in enumerate(text.splitlines(), 1) if "HERE" in each)
    expected = {(f"triage.{name.split()[0]}", line)}
    if name == "last-chunk":
        expected.add(("triage.val-training", line))
    assert {(hit.rule, hit.line) for hit in scan(text)} == expected


def test_every_rule_of_the_checklist_has_a_pattern_here():
    rules = {rule for rule in RULES if rule.startswith("triage.")}
    assert {f"triage.{name.split()[0]}" for name in HITS} == rules - {"triage.scan"}


CLEAN = {
    "the launcher's variables": (
        "import os\ndef f():\n    return os.environ.get('RANK', '0'), os.environ['WORLD_SIZE']\n"
        "local = os.getenv('LOCAL_RANK')\n"
        "def g():\n    return 'TORCHELASTIC_RUN_ID' in os.environ\n"
    ),
    "evaluation during training": """
import torch
def main(model, train_loader, val_tokens):
    for step in range(10):
        with torch.no_grad():
            for x in val_tokens.split(64):
                loss = model(x[:-1], x[1:])
        x, y = train_loader.next_batch()
        loss = model(x, y)
        loss.backward()
""",
    "evaluation by a decorated function": """
import torch
@torch.inference_mode()
def eval_val(model, val_tokens):
    return model(val_tokens[:-1], val_tokens[1:])
def main(model, loader, val_tokens):
    val_loss = eval_val(model, val_tokens)
    loss = model(*loader.next_batch())
    loss.backward()
    print(val_loss, len(val_tokens))
""",
    "a hash of inputs for an embedding": """
import torch
def bigram_hash(tokens, size):
    out = torch.empty_like(tokens)
    out[..., 1:] = torch.bitwise_xor(36313 * tokens[..., 1:], 27191 * tokens[..., :-1]) % (size - 1)
    return out
""",
    "GPTQ": """
def gptq(weight, hessian, blocks):
    for i in range(blocks):
        error = (weight[:, i] - weight[:, i].round()) / hessian[i, i]
        weight[:, i:] -= error[:, None] * hessian[i, i:]
""",
    "warm-up on training data": """
def warm_up(model, train_tokens, val_tokens, optimizer):
    size = val_tokens.numel()
    for _ in range(20):
        loss = model(train_tokens[:512], train_tokens[1:513])
        loss.backward()
        optimizer.step()
    return size
""",
    "a mask over the context": """
def slot(model, mask, x, s):
    for i in range(8):
        mask[i, :s] = 1.0
    (model(x) * mask).sum().backward()
""",
    "its own files": """
import json, re
from pathlib import Path
from urllib.parse import urlparse
pattern = re.compile("x")
blob = open("final_model.int6.ptz", "rb").read()
code = Path(__file__).read_text()
open("train.log", "a").write("step")
words = Path("data/tokenizer.model").read_bytes()
""",
}


@pytest.mark.parametrize("name", CLEAN)
def test_known_false_alarms_are_not_raised(name):
    assert scan(CLEAN[name]) == []


def test_the_seed_family_is_flagged_where_it_adapts_and_nowhere_else():
    found = {path.name: scan(path.read_text()) for path in sorted(SEEDS.glob("*.py"))}
    rules = {name: {hit.rule for hit in hits} - {"triage.environment"} for name, hits in found.items()}
    assert rules["pr162.py"] == rules["pr339.py"] == rules["pr1716.py"] == set()
    assert rules["pr1176.py"] == {"triage.val-training", "triage.last-chunk", "triage.scored-mask"}
    text = (SEEDS / "pr1176.py").read_text().splitlines()
    unguarded = [hit.line for hit in found["pr1176.py"] if hit.rule == "triage.last-chunk"]
    guarded = next(number for number, line in enumerate(text, 1) if "is_last_chunk =" in line)
    assert min(unguarded) > guarded  # the loop with a guard is not named
    settings = [hit for hit in found["pr1176.py"] if hit.rule == "triage.environment"]
    assert len(settings) == 1
    assert "10 settings" in settings[0].what


def test_findings_name_layer_line_and_text(write_submission):
    folder = write_submission("import socket\n" + BIGRAM)
    found = [finding for finding in triage(Submission.open(folder)) if finding.rule == "triage.network"]
    assert len(found) == 1
    assert found[0].level == "warn"
    assert found[0].message.startswith("train_gpt.py unpacked line 1: imports a network client: `import socket`")
    assert found[0].evidence == {"file": "train_gpt.py unpacked", "line": 1, "source": "import socket"}


def test_a_quoted_line_cannot_act_on_a_terminal(write_submission):
    folder = write_submission("import socket # \x1b[2J\x1b[8m\n" + BIGRAM, carried=False)
    (found,) = [finding for finding in triage(Submission.open(folder)) if finding.rule == "triage.network"]
    assert found.message.endswith("`import socket # ?[2J?[8m`")


def test_layers_of_foreign_wrappers_are_scanned(write_submission):
    folder = write_submission(
        xz("import pickle\n" * 3 + "".join(f"value_{i} = {i}\n" for i in range(200))), carried=False
    )
    places = [finding.evidence["file"] for finding in triage(Submission.open(folder))]
    assert places == ["train_gpt.py unpacked"] * 3


def test_an_opaque_payload_is_a_finding(write_submission):
    folder = write_submission(f"exec(decode({'!x' * 900!r}))", carried=False)
    assert {finding.rule for finding in triage(Submission.open(folder))} == {"triage.blob", "triage.dynamic"}


def test_our_own_script_has_no_hits(write_submission):
    found = triage(Submission.open(write_submission()))
    assert [(finding.rule, finding.level) for finding in found] == [("triage.scan", "pass")]
    assert re.search(r"in \d+ lines; that proves nothing", found[0].message)


def test_what_this_python_cannot_parse_is_unknown(write_submission):
    later = "import os\nimport sys\ndef f(x):\n    return x[\n" + "".join(f"v{i} = {i}\n" for i in range(300))
    found = triage(Submission.open(write_submission(xz(later), carried=False)))
    assert [(finding.rule, finding.level) for finding in found] == [("triage.scan", "unknown")]


def test_hits_of_one_rule_are_limited():
    assert len(scan("import socket\n" * 1000)) == MOST


def test_hostile_nesting_does_not_end_the_scan():
    assert scan("x = " + "-" * 50_000 + "1") is None
    assert scan("x = " + "+".join(["1"] * 5000)) in ([], None)


def test_the_wrapper_itself_is_no_hit():
    assert scan(wrap(HITS["target-hash"], {}).decode()) == []


@pytest.mark.parametrize("form", ["safe", "dense"])
def test_the_payload_of_our_wrapper_is_no_blob(form):
    text = (ROOT / "codec" / "decoder.py").read_text()
    hits = scan(wrap(text, {}, form=form).decode())
    assert [hit for hit in hits if hit.rule == "triage.blob"] == []


def test_what_cannot_be_unpacked_is_a_hit_with_its_reason():
    """A damaged payload, and one in lines of 76 characters that holds no source, are never passed over."""
    damaged = base64.b85encode(
        lzma.compress(b"import os\n" * 99 + bytes(random.Random(0).randbytes(3000)))[:-40]
    ).decode()
    lines = base64.encodebytes(random.Random(0).randbytes(3000)).decode()
    prose = "Some help text of a command, in words. " * 60
    source = (
        f"import lzma, base64\nexec(lzma.decompress(base64.b85decode({damaged!r})))\nA = {lines!r}\nB = {prose!r}\n"
    )
    hits = scan(source)
    assert [(hit.rule, hit.line) for hit in hits] == [("triage.blob", 2), ("triage.dynamic", 2), ("triage.blob", 3)]
    assert "of base85 xz data that does not open (it ends early)" in hits[0].what
    assert "characters that is no source" in hits[2].what
