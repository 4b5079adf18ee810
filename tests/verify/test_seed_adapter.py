"""The seed family, the baseline and LoRA TTT: small scripts of tests/verify/seeds, loaded by their own functions."""

import inspect
import io
import lzma
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import InputError
from packager.importers.read_any import read_any
from tests.verify.measured import FACTS
from tests.verify.test_source_layers import xz
from verify.rescore import reload
from verify.run_rules import check_protocol
from verify.sandbox import seed_adapter
from verify.sandbox.launch import Settings
from verify.sandbox.seed_adapter import attention, attention_of_documents
from verify.submission.folder import Submission

SEEDS = Path(__file__).parent / "seeds"
SMALL = {"VOCAB_SIZE": "300", "NUM_LAYERS": "2", "MODEL_DIM": "16", "NUM_HEADS": "2", "NUM_KV_HEADS": "1"}
LENGTHS = {"TRAIN_SEQ_LEN": "16", "EVAL_SEQ_LEN": "16"}
BLOBS = {
    "pr162": "final_model.int8.ptz",
    "pr339": "final_model.int6.ptz",
    "pr1176": "final_model.int6.ptz",
    "pr1716": "final_model.int6.ptz",
}
BY_LOSS = ("baseline", "lora_ttt")  # scripts that give a loss and no logits
BLOBS |= dict.fromkeys(BY_LOSS, "final_model.int8.ptz")


def looped_attention(q, k, v, causal=False):
    """One query, one head at a time, in float64."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    group = q.shape[2] // k.shape[2]
    for b, t, h in np.ndindex(*q.shape[:3]):
        stop = t + 1 if causal else k.shape[1]
        keys, values = k[b, :stop, h // group].double(), v[b, :stop, h // group].double()
        out[b, t, h] = (keys @ q[b, t, h].double() / math.sqrt(q.shape[3])).softmax(0) @ values
    return out.to(q.dtype)


def looped_documents(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal=False):
    """One token at a time: its keys are those between the start of its document and itself."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    starts, group = sorted(cu_seqlens_k.tolist()), q.shape[1] // k.shape[1]
    for place, head in np.ndindex(*q.shape[:2]):
        start = max(each for each in starts if each <= place)
        stop = place + 1 if causal else min(each for each in starts if each > place)
        keys, values = k[start:stop, head // group].double(), v[start:stop, head // group].double()
        out[place, head] = (keys @ q[place, head].double() / math.sqrt(q.shape[2])).softmax(0) @ values
    return out.to(q.dtype)


@pytest.fixture
def script(monkeypatch):
    """script(name) -> the module, run as the sandbox runs it but with this file's own attention."""
    kernels = ModuleType("flash_attn_interface")
    kernels.flash_attn_func = looped_attention
    kernels.flash_attn_varlen_func = looped_documents
    monkeypatch.setitem(sys.modules, "flash_attn_interface", kernels)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(torch.nn.Module, "bfloat16", torch.nn.Module.bfloat16)  # given back afterwards
    for name, value in {**SMALL, **LENGTHS}.items():
        monkeypatch.setenv(name, value)

    def run(name):
        module = ModuleType(name)
        exec(compile((SEEDS / f"{name}.py").read_bytes(), name, "exec"), module.__dict__)
        return module

    return run


def written(module, folder):
    """The script's own blob of a random model -> (its path, the model with the weights that a second reader finds)."""
    torch.manual_seed(7)
    settings, path = module.Hyperparameters(), folder / BLOBS[module.__name__]
    if module.__name__ == "pr1716":
        model = module.GPT(settings)
    elif module.__name__ in BY_LOSS:
        names = inspect.signature(module.GPT).parameters
        model = module.GPT(**{name: getattr(settings, name) for name in names})
    else:
        args = (settings.vocab_size, settings.num_layers, settings.model_dim, settings.num_heads, settings.num_kv_heads)
        more = {"pr162": {"logit_softcap": 30.0, "bigram_vocab_size": 64}, "pr339": {"backout": True}, "pr1176": {}}
        model = module.GPT(*args, **more[module.__name__])
    module.save(model, path)
    tensors = {name: torch.from_numpy(array) for name, array in read_any(path).tensors.items()}
    if module.__name__ == "pr1176":
        for bank, kinds in {"qo_bank": ("c_q", "proj"), "kv_bank": ("c_k", "c_v")}.items():
            names = [f"blocks.{i}.attn.{kind}.weight" for kind in kinds for i in range(2)]
            tensors[bank] = torch.stack([tensors.pop(name) for name in names])
    model.load_state_dict(tensors)
    if module.__name__ == "pr1716":
        model.looping_active = True
    return path, model


@pytest.mark.parametrize("name", [name for name in BLOBS if name not in BY_LOSS])
def test_each_shape_is_loaded_by_its_own_functions(script, tmp_path, name):
    module = script(name)
    path, reference = written(module, tmp_path)
    loaded = seed_adapter.load(module, path, "cpu")
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 300, (2, 16)))
    with torch.no_grad():
        assert torch.equal(loaded.model.logits(ids), reference.forward_logits(ids))
        if name == "pr1176":
            assert torch.equal(loaded.model.head(loaded.model.hidden(ids)), reference.forward_logits(ids))
        else:
            assert not hasattr(loaded.model, "hidden")
    assert loaded.length == 16
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", BY_LOSS)
def test_logits_are_those_behind_the_scripts_own_loss(script, tmp_path, name):
    module = script(name)
    path, reference = written(module, tmp_path)
    loaded = seed_adapter.load(module, path, "cpu")
    rng = np.random.default_rng(0)
    ids, targets = torch.from_numpy(rng.integers(0, 300, (2, 3, 16)))
    with torch.no_grad():
        logits = loaded.model.logits(ids)
        assert logits.shape == (3, 16, 300)
        own = reference(ids, targets)  # the mean over all
        assert torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()) == pytest.approx(float(own))
    assert loaded.notes[-1] == "logits are what its `forward` hands to cross_entropy"
    assert loaded.length == 16


def test_a_forward_without_one_loss_is_refused(script, tmp_path):
    module = script("baseline")
    path, _ = written(module, tmp_path)
    for forward, words in [
        (lambda model, ids, targets: ids.float().mean(), "0 calls of cross_entropy"),
        (lambda model, ids: ids, "TypeError"),
        (
            lambda model, ids, targets: torch.nn.functional.cross_entropy(torch.zeros(5, 9), targets[0, :1]),
            "ValueError",
        ),
    ]:
        module.GPT.forward = forward
        with pytest.raises(InputError, match=f"no `forward_logits.*hands no logits to cross_entropy.*{words}"):
            seed_adapter.load(module, path, "cpu")


@settings(max_examples=25)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.booleans(), st.integers(0, 99))
def test_attention_of_documents_is_that_of_each(lengths, causal, seed):
    generator = torch.Generator().manual_seed(seed)
    ends = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    count = int(ends[-1])
    q, k, v = (torch.randn(count, heads, 4, generator=generator, dtype=torch.float64) for heads in (4, 2, 2))
    found = attention_of_documents(q, k, v, ends, ends, max(lengths), max(lengths), causal=causal)
    assert torch.allclose(found, looped_documents(q, k, v, ends, ends, 0, 0, causal=causal), atol=1e-12)
    for wrong in (ends[1:], ends[:-1], ends + 1):
        if wrong.tolist() != ends.tolist() and (not len(wrong) or wrong[0] or wrong[-1] != count):
            with pytest.raises(ValueError, match="documents of queries"):
                attention_of_documents(q, k, v, wrong, wrong, 9, 9)


def test_notes_say_how_it_was_made(script, tmp_path):
    module = script("pr339")
    path, _ = written(module, tmp_path)
    assert seed_adapter.load(module, path, "cpu").notes == (
        "GPT built from 7 of the Hyperparameters",
        "left at the class's own default: `rope_dims`",
    )
    module = script("pr1716")
    path, _ = written(module, tmp_path)
    assert seed_adapter.load(module, path, "cpu").notes == (
        "loaded by its own `deserialize`",
        "looping_active set to True",
    )


@pytest.mark.parametrize(("heads", "groups", "causal"), [(4, 4, True), (4, 2, True), (6, 1, True), (4, 2, False)])
def test_attention_is_exact(heads, groups, causal):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 9, n, 8, generator=generator, dtype=torch.float64) for n in (heads, groups, groups))
    assert torch.allclose(attention(q, k, v, causal=causal), looped_attention(q, k, v, causal), atol=1e-12)
    assert torch.allclose(attention(q, k, v, 0.5), attention(q * 0.5 * math.sqrt(8), k, v), atol=1e-12)


def test_settings_of_another_run_do_not_fit(script, tmp_path, monkeypatch):
    path, _ = written(script("pr162"), tmp_path)
    monkeypatch.setenv("NUM_LAYERS", "3")
    with pytest.raises(InputError, match=r"does not fit the model its settings describe.*--env NAME=VALUE"):
        seed_adapter.load(script("pr162"), path, "cpu")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be decompressed"),
        (b"\x28\xb5\x2f\xfd" + bytes(50), "cannot be decompressed|holds no plain tensors"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 50, "cannot be decompressed"),
        (b"hello world, this is no blob", "no known format"),
        (lzma.compress(b"x" * 1000), "holds no plain tensors"),
    ],
)
def test_damaged_blobs_are_refused(script, tmp_path, content, words):
    (tmp_path / "final_model.int8.ptz").write_bytes(content)
    with pytest.raises(InputError, match=words):
        seed_adapter.load(script("pr162"), tmp_path / "final_model.int8.ptz", "cpu")


def test_blobs_of_other_content_are_refused(script, tmp_path):
    buffer = io.BytesIO()
    torch.save({"model": torch.zeros(3)}, buffer)
    (tmp_path / "x.ptz").write_bytes(zstandard.compress(buffer.getvalue()))
    with pytest.raises(InputError, match="holds `model`, need the tensors `w` and the labels `m`"):
        seed_adapter.load(script("pr162"), tmp_path / "x.ptz", "cpu")
    with pytest.raises(InputError, match="holds `model`, need `quantized`, `scales` and `passthrough`"):
        seed_adapter.load(script("baseline"), tmp_path / "x.ptz", "cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda module: delattr(module, "Hyperparameters"), "nor the classes of the seed family"),
        (lambda module: delattr(module, "dequantize_mixed_int6"), "offers neither `deserialize` nor"),
        (lambda module: delattr(module.Hyperparameters, "num_heads"), "`GPT` needs `num_heads`"),
        (lambda module: delattr(module.GPT, "forward_logits"), "no `forward_logits"),
    ],
)
def test_scripts_of_other_families_are_refused(script, tmp_path, change, words):
    module = script("pr162")
    path, _ = written(module, tmp_path)
    change(module)
    with pytest.raises(InputError, match=words):
        seed_adapter.load(module, path, "cpu")


README = """# A record

```bash
export EVAL_SEQ_LEN=16 TRAIN_SEQ_LEN=16
SEED=$SEED VOCAB_SIZE=300 NUM_LAYERS=2 MODEL_DIM=16 \\
  NUM_HEADS=2 NUM_KV_HEADS=1 torchrun --standalone --nproc_per_node=8 train_gpt.py
```
"""


@pytest.mark.parametrize(
    "name",
    [
        "pr162",
        "pr1716",
        "baseline",
        "lora_ttt",
        pytest.param("pr339", marks=pytest.mark.slow),
        pytest.param("pr1176", marks=pytest.mark.slow),
    ],
)
def test_wrapped_scripts_in_the_sandbox_score_as_the_reference_does(script, tmp_path, heldout, name):
    """Wrapped, with the settings of the README's run command; the score against a plain loop over windows."""
    folder = tmp_path / "record"
    folder.mkdir()
    (folder / "train_gpt.py").write_text(xz((SEEDS / f"{name}.py").read_text()))
    (folder / "README.md").write_text(README)
    _, reference = written(script(name), folder)
    subject = Submission.open(folder)
    assert (subject.foreign, subject.state, subject.stated_in) != ("", {}, "")
    result = reload(subject, subject.blob, heldout, Settings(stride=16, batch=3, threads=1))
    nats, tokens = 0.0, torch.from_numpy(heldout.tokens.astype(np.int64))
    with torch.no_grad():
        for start in range(0, heldout.targets, 16):
            stop = min(start + 16, heldout.targets)
            ids, targets = tokens[None, start:stop], tokens[start + 1 : stop + 1]
            if name in BY_LOSS:
                nats += float(reference(ids, targets[None])) * len(targets)
                continue
            log_probs = reference.forward_logits(ids)[0].double().log_softmax(1)
            nats -= float(log_probs.gather(1, targets[:, None]).sum())
    assert result.score.nats == pytest.approx(nats, rel=1e-6)
    assert result.length == 16
    stating = replace(FACTS.folder, environment=subject.environment, stated_in=subject.stated_in)
    protocol = check_protocol(replace(FACTS, folder=stating, packed=result))
    assert protocol.level == "warn"
    assert "VOCAB_SIZE=300" in protocol.message
    assert "as README.md states" in protocol.message
