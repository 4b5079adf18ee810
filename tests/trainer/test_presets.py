"""Presets: the toolkit's own against the numbers they had as Python, a user's TOML and its mistakes, registration."""

import json
import tomllib
from dataclasses import replace

import pytest

from codec.errors import InputError, UsageError
from tests.conftest import ROOT
from trainer.presets.catalog import FILES, PRESETS, add_preset, find_preset
from trainer.presets.preset import Preset

GOLDEN = json.loads((ROOT / "tests/golden/presets.json").read_text())
HEAD = 'version = 1\nname = "mine"\ndescription = "a try"\n'
TINY = HEAD + 'extends = "tiny"\n'


@pytest.fixture
def write(tmp_path):
    """Write a preset's TOML -> its path."""

    def to_file(text, name="mine.toml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return to_file


@pytest.fixture
def catalog():
    """What a test registers is gone after it."""
    before = dict(PRESETS)
    yield PRESETS
    PRESETS.clear()
    PRESETS.update(before)


def test_there_are_as_many_as_there_were():
    assert PRESETS.keys() == GOLDEN.keys()
    assert FILES.keys() - PRESETS.keys() == {"_h100"}


@pytest.mark.parametrize("name", GOLDEN)
def test_each_is_what_it_was(name):
    """Values and their types, against those of the dataclasses that the files replaced."""
    preset = find_preset(name)
    assert preset.to_dict() == {"name": name, **GOLDEN[name]}
    for config, golden in ((preset.model, GOLDEN[name]["model"]), (preset.train, GOLDEN[name]["train"])):
        for key, value in golden.items():
            assert type(getattr(config, key)) is (tuple if isinstance(value, list) else type(value)), key


def whole(values):
    """A preset's TOML that extends nothing."""
    lines = ["version = 1"]
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"[{key}]", *(f"{field} = {json.dumps(each)}" for field, each in value.items())]
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join(lines)


@pytest.mark.parametrize("name", ["tiny", "pr1716-bigram"])
def test_a_file_can_say_all_that_a_preset_is(name, write):
    assert find_preset(write(whole(find_preset(name).to_dict()))) == find_preset(name)


def test_a_file_says_only_what_differs(write):
    preset = find_preset(write(TINY + "[model]\ndim = 64\n[train]\ngrad_clip = 2\nmomentum = [0, 0.9]\n"))
    tiny = find_preset("tiny")
    assert (preset.name, preset.description, preset.fixed_vocab) == ("mine", "a try", False)
    assert preset.model == replace(tiny.model, dim=64)
    assert preset.train == replace(tiny.train, grad_clip=2.0, momentum=(0.0, 0.9))
    assert json.dumps(preset.train.to_dict()["grad_clip"]) == "2.0"  # in the log and in saved states


def test_files_extend_files(write):
    """A fixed vocabulary is inherited too, and can be unsaid; names and descriptions are a file's own."""
    write('version = 1\nextends = "pr162"\n[train]\nsteps = 7\nval_every = 3\n', "base.toml")
    preset = find_preset(write(HEAD + 'extends = "base.toml"\n[train]\nsteps = 9\n'))
    assert (preset.train.steps, preset.train.val_every, preset.train.embed_lr) == (9, 3, 0.03)
    assert preset.fixed_vocab
    assert not find_preset(write(HEAD + 'extends = "base.toml"\nfixed_vocab = false\n')).fixed_vocab


def test_a_registered_preset_is_found_and_extended(catalog, write):
    tiny = find_preset("tiny")
    add_preset(replace(tiny, name="toy", train=replace(tiny.train, steps=5)))
    assert find_preset("toy").train.steps == 5
    assert find_preset(write(HEAD + 'extends = "toy"\n')).train == find_preset("toy").train
    with pytest.raises(UsageError, match="there is a preset `toy` already; give it another name"):
        add_preset(find_preset("toy"))
    with pytest.raises(UsageError, match="did you mean `toy`"):
        find_preset("toyy")


def test_a_preset_of_ones_own_may_have_a_known_name(write):
    """It replaces nothing: the name is what logs call it."""
    assert find_preset(write(TINY.replace("mine", "tiny") + "[train]\nsteps = 3\n")).train.steps == 3
    assert find_preset("tiny").train.steps == 40


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version = ", "is not valid TOML (Invalid value"),
        ("a = " + 5000 * "[", "is not valid TOML (maximum recursion depth exceeded"),
        ('name = "mine"', "has preset version None, this toolkit reads version 1; begin it with version = 1"),
        ("version = 2", "has preset version 2, this toolkit reads version 1"),
        ('version = 1\nextends = "tiny"', "lacks `name`; write name = ... above its tables"),
        ('version = 1\nname = "a"\nextends = "tiny"', "lacks `description`"),
        (HEAD, '[model] lacks `vocab_size`; state it, or let the file extend one: extends = "tiny"'),
        (HEAD + "[model]\nlayers = 2", "[model] lacks `vocab_size`"),
        (TINY + "[modle]\nlayers = 2", "has an unknown key `modle`; did you mean `model`?"),
        (TINY + "colour = 3", "has an unknown key `colour`; known: name, description, extends, fixed_vocab, model, t"),
        (TINY + "steps = 3", "has an unknown key `steps`; it belongs under [train]"),
        (TINY + "seq_len = 3", "has an unknown key `seq_len`; it belongs under [model] or [train]"),
        (TINY + "[model]\nlayrs = 2", "[model] has an unknown key `layrs`; did you mean `layers`?"),
        (TINY + "[model]\nsteps = 2", "[model] has an unknown key `steps`; it belongs under [train]"),
        (TINY + "model = 3", "`model` is 3, it must be a table; write [model]"),
        (TINY + "[[train]]\nsteps = 3", '`train` is [{"steps": 3}], it must be a table; write [train]'),
        (TINY + "fixed_vocab = 1", "`fixed_vocab` is 1, it must be true or false"),
        (TINY.replace('"a try"', "[1]"), "`description` is [1], it must be text"),
        (HEAD + "extends = true", "`extends` is true, it must be text"),
        (TINY + '[model]\nlayers = "2"', '[model] `layers` is "2", it must be a whole number of at least 0'),
        (TINY + "[model]\nlayers = 2.0", "[model] `layers` is 2.0, it must be a whole number"),
        (TINY + "[model]\nlayers = true", "[model] `layers` is true, it must be a whole number"),
        (TINY + "[model]\nlayers = -2", "[model] `layers` is -2, it must be a whole number"),
        (TINY + f"[model]\nlayers = {10**18}", "it must be a whole number"),
        (TINY + "[model]\nbackout = 1", "[model] `backout` is 1, it must be true or false"),
        (TINY + "[model]\nsmear = false", "[model] `smear` is false, it must be text"),
        (TINY + "[train]\nmatrix_lr = nan", "[train] `matrix_lr` is NaN, it must be a number of at least 0"),
        (TINY + "[train]\nmatrix_lr = inf", "[train] `matrix_lr` is Infinity, it must be a number of at least 0"),
        (TINY + f"[train]\nmatrix_lr = {10**400}", "000..., it must be a number of at least 0"),
        (TINY + "[train]\nmatrix_lr = 2020-01-01", '[train] `matrix_lr` is "2020-01-01", it must be a number'),
        (TINY + "[train]\nmomentum = 0.9", "[train] `momentum` is 0.9, it must be two numbers of at least 0"),
        (TINY + "[train]\nmomentum = [0.9]", "[train] `momentum` is [0.9], it must be two numbers"),
        (TINY + "[train]\nmomentum = [0.9, '1']", '[train] `momentum` is [0.9, "1"], it must be two numbers'),
        (TINY + f"[train]\nloader = {90 * [1]}", "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, ..., it must be text"),
        (TINY + "[model]\nlayers = 1", "the model has 1 layers, skip connections need at least 2"),
        (TINY + "[train]\nwarmdown_steps = 5", "warmdown and warmdown_steps exclude each other, set one of them"),
        (TINY + "[train]\nqat_below = 0.1", "qat_below and qat_recipe go together; set both or none"),
        (HEAD + 'extends = "tinny"', "there is no preset `tinny`; did you mean `tiny`? presets: "),
        (HEAD + 'extends = "mine.toml"', "extends `mine.toml`, which extends it: a circle"),
    ],
)
def test_mistakes_are_one_sentence_that_names_the_file(write, text, words):
    path = write(text)
    with pytest.raises(UsageError) as caught:
        find_preset(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_of_a_file_that_is_extended_name_both(write, tmp_path):
    mine = write(HEAD + 'extends = "base.toml"')
    with pytest.raises(InputError, match=r"mine\.toml, .*base\.toml: no such file"):
        find_preset(mine)
    base = write("version = 1\n[model]\nlayrs = 2\n", "base.toml")
    with pytest.raises(UsageError, match=r"\[model\] has an unknown key `layrs`") as caught:
        find_preset(mine)
    assert caught.value.where == f"{mine}, {base}"
    write('version = 1\nextends = "mine.toml"\n', "base.toml")
    with pytest.raises(UsageError, match=r"extends `mine\.toml`, which extends it: a circle") as caught:
        find_preset(mine)
    assert caught.value.where == f"{mine}, {base}"


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "empty.toml").touch()
    for name, words in (("missing", "no such file"), ("folder", "cannot be read"), ("empty", "is empty")):
        with pytest.raises(InputError, match=rf"{name}\.toml: {words}"):
            find_preset(tmp_path / f"{name}.toml")


def test_a_wheel_carries_them():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["trainer"]
    for path in FILES.values():
        assert any(path == found for pattern in patterns for found in (ROOT / "trainer").glob(pattern)), path


def test_no_setting_is_said_twice():
    """A file that extends another states nothing that it inherits."""
    own = {name: tomllib.loads(path.read_text()) for name, path in FILES.items()}
    for name, tables in own.items():
        base = own.get(tables.get("extends"), {})
        for table in ("model", "train"):
            assert not tables.get(table, {}).items() & base.get(table, {}).items(), (name, table)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_itself_as_toml(name):
    odd = replace(PRESETS[name], description='rockets \U0001f680, "quotes", \\ and \x7f')
    assert Preset.parsed(odd.to_toml()) == odd
    notes = {"preset": name, "description": "", "fixed_vocab": odd.fixed_vocab, "config": odd.model.to_dict()}
    assert Preset.of_checkpoint({**notes, "train": odd.train.to_dict()}) == replace(odd, description="")
    assert Preset.of_checkpoint(notes) is None
    with pytest.raises(InputError, match="describe no training"):
        Preset.of_checkpoint({**notes, "train": {"steps": 3}})
