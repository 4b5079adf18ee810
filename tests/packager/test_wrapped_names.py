"""State dicts made by the wrapper classes of torch themselves: after import each is the model's own, bit for bit."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import distributed, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from codec.errors import InputError
from codec.measurement.weight_count import weight_count
from packager.importers.read_any import read_any
from packager.importers.wrapped_names import unwrapped_names


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = nn.Linear(5, 5)  # a name that a wrapper uses too
        self.scale = nn.Parameter(torch.rand(5))

    def forward(self, x):
        return self.scale * self.module(x)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Embedding(7, 5)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.steps = nn.Buffer(torch.tensor(4))

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return x


@pytest.fixture(scope="module")
def rank(tmp_path_factory):
    """One gloo rank."""
    file = tmp_path_factory.mktemp("gloo") / "store"
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def averaged(model):
    mean = AveragedModel(model)
    mean.update_parameters(model)
    return mean.state_dict()


def compiled_blocks(model):
    """Some modules compiled, so that the prefix stands inside the names."""
    model.blocks[0] = torch.compile(model.blocks[0])
    model.blocks[1].module = torch.compile(model.blocks[1].module)
    return model.state_dict()


def checkpointed(model):
    model.blocks[1] = checkpoint_wrapper(model.blocks[1])
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def fully_sharded(model):
    for place in range(2):
        model.blocks[place] = FullyShardedDataParallel(
            model.blocks[place], use_orig_params=True, device_id=torch.device("cpu")
        )
    model = FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


WRAPPERS = {
    "bare": (lambda model: model.state_dict(), ()),
    "AveragedModel": (averaged, ("module.", "n_averaged")),
    "torch.compile": (lambda model: torch.compile(model).state_dict(), ("_orig_mod.",)),
    "torch.compile of blocks": (compiled_blocks, ("_orig_mod.",)),
    "DDP": (lambda model: DistributedDataParallel(model).state_dict(), ("module.",)),
    "DDP of a compiled model": (
        lambda model: DistributedDataParallel(torch.compile(model)).state_dict(),
        ("_orig_mod.", "module."),
    ),
    "compiled DDP": (
        lambda model: torch.compile(DistributedDataParallel(model)).state_dict(),
        ("_orig_mod.", "module."),
    ),
    "AveragedModel of DDP": (lambda model: averaged(DistributedDataParallel(model)), ("module.", "n_averaged")),
    "FSDP": (fully_sharded, ("_fsdp_wrapped_module.",)),
    "checkpoint_wrapper": (checkpointed, ("_checkpoint_wrapped_module.",)),
    "a trainer's model": (
        lambda model: {f"model.{name}": each for name, each in model.state_dict().items()},
        ("model.",),
    ),
}


SLOW = [pytest.mark.slow]  # torch.compile imports its compiler, which takes 11 s


@pytest.mark.filterwarnings("ignore:FSDP is switching to use")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch's own compiler
@pytest.mark.parametrize("suffix", ["pt", "safetensors", "nest"])
@pytest.mark.parametrize("wrapper", [pytest.param(each, marks=SLOW if "compile" in each else []) for each in WRAPPERS])
def test_every_wrapper_class_gives_the_models_own_tensors(rank, tmp_path, wrapper, suffix):
    own = {name: each.clone() for name, each in Small().state_dict().items()}
    make, prefixes = WRAPPERS[wrapper]
    state = {name: each.detach().clone() for name, each in make(Small()).items()}
    for prefix in prefixes:
        assert any(prefix.rstrip(".") in name for name in state), "torch no longer writes this prefix"
    path = tmp_path / "file"
    if suffix == "safetensors":
        save_file(state, path, {"pgolf": json.dumps({"seed": 5})})
    else:
        torch.save(state if suffix == "pt" else {"config": {"dim": 5}, "net": state, "step": 3}, path)
    imported = read_any(path)
    assert imported.tensors.keys() == own.keys()
    for name, tensor in own.items():
        array = imported.tensors[name]
        assert (array.dtype, array.shape) == (tensor.numpy().dtype, tuple(tensor.shape))
        assert array.tobytes() == tensor.numpy().tobytes()
    dropped = [note for note in imported.notes if "dropped from the names" in note]
    assert len(dropped) == bool(prefixes)
    assert all(f"`{prefix}`" in dropped[0] for prefix in prefixes)
    assert suffix != "safetensors" or imported.metadata["seed"] == 5


@pytest.mark.filterwarnings("ignore:FSDP is switching to use")
def test_flattened_parameters_are_refused_by_name(rank, tmp_path):
    flat = FullyShardedDataParallel(Small(), device_id=torch.device("cpu"))
    torch.save({name: each.detach().clone() for name, each in flat.named_parameters()}, tmp_path / "flat.pt")
    with pytest.raises(InputError, match=r"flat.pt, tensor `.*flat_param`: is a module's parameters in one vector"):
        read_any(tmp_path / "flat.pt")


SEGMENTS = st.sampled_from(["blocks", "0", "1", "attn", "weight", "module", "model", "modules", "scale"])
NAMES = st.lists(st.lists(SEGMENTS, min_size=1, max_size=4).map(".".join), min_size=1, max_size=6, unique=True)
WRAPPED = st.sampled_from(["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])


@given(NAMES, st.data())
def test_wrappers_anywhere_change_nothing(names, data):
    """Whatever a model's names are, those segments anywhere in them give what the names without them give."""
    wrapped = []
    for name in names:
        parts = name.split(".")
        for _ in range(data.draw(st.integers(0, 2))):
            parts.insert(data.draw(st.integers(0, len(parts))), data.draw(WRAPPED))
        wrapped.append(".".join(parts))
    try:
        bare, _ = unwrapped_names(names)
    except InputError:
        with pytest.raises(InputError, match="without the prefixes of wrapper classes"):
            unwrapped_names(wrapped)
        return
    found, note = unwrapped_names(wrapped)
    assert [*found.values()] == [*bare.values()]
    assert bool(note) == (wrapped != [*found.values()])


def test_two_names_that_become_one_are_refused():
    with pytest.raises(InputError, match=r"tensor `_orig_mod.a`: and `a` are both `a` without the prefixes"):
        unwrapped_names(["a", "_orig_mod.a"])
    assert unwrapped_names(["module.a", "b"]) == ({"module.a": "module.a", "b": "b"}, "")
    assert unwrapped_names(["n_averaged", "a"])[0] == {"n_averaged": "n_averaged", "a": "a"}


# ---- nests


def tensors(value, name="w"):
    return {name: torch.full((2, 3), float(value))}


@pytest.mark.parametrize(
    ("content", "value", "notes"),
    [
        ({"weights": tensors(1), "config": {"dim": 3}}, 1, ["ignored what is not a tensor: `config`"]),
        ({"model": {"dim": 3}, "module": tensors(2)}, 2, ["ignored what is not a tensor: `model`"]),
        ({"state": {"model": tensors(3), "lr": 1}, "step": 4}, 3, ["ignored what is not a tensor: `step`, `lr`"]),
        (
            {"anything": tensors(4), "loss": torch.tensor(1.0), "optimizer": {"state": tensors(9)}},
            4,
            ["ignored what is not a tensor: `optimizer`", "the weights are those of `anything`; left out, tensors too"],
        ),
        ({"anything": tensors(4), "optimizer": {"state": {0: tensors(9)}}}, 4, ["ignored what is not a tensor: `opt"]),
        (
            {"model": tensors(7), "best": torch.tensor(1.0), "step": 2},
            7,
            [
                "ignored what is not a tensor: `step`",
                "the weights are those of `model`; left out, tensors too: `best`",
            ],
        ),
        (
            {"ema": tensors(5), "state_dict": tensors(6)},
            6,
            ["the weights are those of `state_dict`; left out, tensors too: `ema`"],
        ),
    ],
)
def test_state_dicts_are_found_in_what_trainers_save(tmp_path, content, value, notes):
    torch.save(content, tmp_path / "file.pt")
    imported = read_any(tmp_path / "file.pt")
    if value is None:  # a tensor at the top: the content itself is the state dict, as far as anybody can tell
        assert imported.tensors.keys() == {"loss"}
        return
    assert np.array_equal(imported.tensors["w"], np.full((2, 3), value))
    assert len(imported.notes) == len(notes)
    assert all(note.startswith(start) for note, start in zip(imported.notes, notes, strict=True))


def test_several_unknown_nests_are_named(tmp_path):
    torch.save({"a": tensors(1), "b": tensors(2)}, tmp_path / "file.pt")
    with pytest.raises(InputError, match=r"holds tensors in `a`, `b`, and none is known to be the model"):
        read_any(tmp_path / "file.pt")


def test_a_config_beside_the_weights_is_the_models(tmp_path):
    config = {"vocab_size": 7, "layers": 2, "dim": 4, "heads": 2, "kv_heads": 2, "seq_len": 8, "mlp_hidden": 8}
    torch.save({"model_state_dict": tensors(1), "model_config": config}, tmp_path / "file.pt")
    assert read_any(tmp_path / "file.pt").metadata == {"config": config}


def test_a_copy_is_no_weight():
    table = np.arange(12.0).reshape(3, 4)
    zeros, same = np.zeros((3, 4)), np.float32(1.0).reshape(())
    assert weight_count({"wte": table, "head": table.copy()}) == 12
    assert weight_count({"wte": table, "transposed": table.T.copy(), "view": table[:2]}) == 32
    assert weight_count({"a": zeros, "b": zeros.copy(), "c": same, "d": same}) == 26
