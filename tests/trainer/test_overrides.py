"""Settings of a preset from `KEY=VALUE` texts: every field by its type, and one sentence for what cannot be."""

from dataclasses import fields

import pytest

from codec.errors import UsageError
from trainer.model.config import GPTConfig
from trainer.presets.catalog import PRESETS
from trainer.presets.overrides import apply_overrides
from trainer.presets.train_config import TrainConfig

PR339 = PRESETS["pr339"]


def test_what_readmes_intend_can_be_set():
    """Late QAT, the log's 2048 buckets, the README's hash, polar coefficients, a floor of the rate."""
    texts = "qat_below=0.1 qat_recipe=pr339 bigram_buckets=2048 bigram_hash=poly31 newton_schulz=polar min_lr=0.05"
    found = apply_overrides(PR339, [*texts.split(), "smear_bos_mask=true", "momentum=0.9,0.95", "seq_len=1024"])
    assert (found.train.qat_below, found.train.qat_recipe, found.train.min_lr) == (0.1, "pr339", 0.05)
    assert (found.train.newton_schulz, found.train.momentum) == ("polar", (0.9, 0.95))
    assert (found.model.bigram_buckets, found.model.bigram_hash, found.model.smear_bos_mask) == (2048, "poly31", True)
    assert found.model.seq_len == found.train.seq_len == 1024
    assert (found.name, found.model.layers, found.train.steps) == (PR339.name, PR339.model.layers, PR339.train.steps)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_field_can_be_set_to_what_it_is(preset):
    """Each field's own value, written as on a command line, gives an equal preset of equal types."""
    texts = []
    for config in (preset.model, preset.train):
        for name, value in config.to_dict().items():
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            texts.append(f"{name}={text.lower() if isinstance(value, bool) else text}")
    texts = sorted(set(texts) - {f"vocab_size={preset.model.vocab_size}"})
    assert len(texts) == len(fields(GPTConfig)) + len(fields(TrainConfig)) - 2
    again = apply_overrides(preset, texts)
    assert again == preset
    for ours, theirs in ((again.model, preset.model), (again.train, preset.train)):
        for field in fields(ours):
            assert type(getattr(ours, field.name)) is type(getattr(theirs, field.name)), field.name
    assert apply_overrides(preset, []) == preset


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["qat_bellow=0.1"], "there is no setting `qat_bellow`; did you mean `qat_below`?"),
        (["warmth=1"], "there is no setting `warmth`; "),
        (["grad_clip"], "setting `grad_clip` has no value; write KEY=VALUE"),
        (["min_lr=0.1", "min_lr=0.2"], "setting min_lr is given twice"),
        (["vocab_size=300"], "vocab_size cannot be set; it is the tokenizer's number of pieces"),
        (["layers=2.5"], "setting layers is `2.5`, it must be a whole number of at least 0"),
        (["layers=-3"], "setting layers is `-3`, it must be a whole number"),
        (["layers=\u0663"], "it must be a whole number"),
        (["min_lr=nan"], "setting min_lr is `nan`, it must be a number of at least 0"),
        (["min_lr=inf"], "setting min_lr is `inf`, it must be a number"),
        (["min_lr="], "setting min_lr is ``, it must be a number"),
        (["backout=1"], "setting backout is `1`, it must be true or false"),
        (["momentum=0.9"], "setting momentum is `0.9`, it must be two numbers of at least 0, as 0.85,0.95"),
        (["newton_schulz=quintic"], "newton_schulz is `quintic`, it must be one of jordan, polar"),
        (["qat_below=0.1"], "qat_below and qat_recipe go together"),
        (["max_seconds=10", "reserve_seconds=12"], "reserve_seconds is 12, of max_seconds 10 nothing is left to train"),
    ],
)
def test_mistakes_are_one_sentence(texts, words):
    with pytest.raises(UsageError) as caught:
        apply_overrides(PR339, texts)
    assert words in str(caught.value)
