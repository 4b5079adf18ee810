"""Names of tensors as wrapper classes write them, back to the names of the model inside.

Source: torch 2.13: torch.compile, DistributedDataParallel, FullyShardedDataParallel, checkpoint_wrapper,
torch.optim.swa_utils.AveragedModel; `model.` is what trainer classes call the model that they hold.
"""

from collections.abc import Collection

from codec.errors import InputError

ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # names nobody gives a module
LEADING = ("module.", "model.")  # names that people give too: dropped only where every tensor has them
COUNTER = "n_averaged"  # AveragedModel's number of averaged models, beside `module.`
FLAT = "flat_param"  # FSDP's parameters of a whole module as one vector


def unwrapped_names(names: Collection[str]) -> tuple[dict[str, str], str]:
    """({stored name: name in the model}, a note on what was dropped); AveragedModel's counter is left out.

    >>> unwrapped_names(["n_averaged", "module.blocks.0._orig_mod.scale", "module.tok_emb.weight"])[0]
    {'module.blocks.0._orig_mod.scale': 'blocks.0.scale', 'module.tok_emb.weight': 'tok_emb.weight'}

    Raises: InputError for two names that become one, and for parameters that FSDP has flattened.
    """
    dropped: list[str] = []
    found = {name: _without_segments(name, dropped) for name in names}
    while True:
        counters = [name for name, own in found.items() if own == COUNTER]
        others = [own for name, own in found.items() if name not in counters]
        prefix = next((each for each in LEADING if others and all(own.startswith(each) for own in others)), "")
        if not prefix or (counters and prefix != "module."):
            break
        dropped += [prefix, *counters]
        found = {name: own.removeprefix(prefix) for name, own in found.items() if name not in counters}
    for name, own in found.items():
        if own.rpartition(".")[2].lstrip("_") == FLAT:
            raise InputError(
                "is a module's parameters in one vector, as FSDP shards them",
                where=f"tensor `{name}`",
                hint="save with state_dict_type FULL_STATE_DICT",
            )
    first: dict[str, str] = {}
    for name, own in found.items():
        if own in first or not own:
            raise InputError(
                f"and `{first.get(own, name)}` are both `{own}` without the prefixes of wrapper classes",
                where=f"tensor `{name}`",
                hint="save the state dict of the model itself",
            )
        first[own] = name
    prefixes = ", ".join(f"`{each}`" for each in dict.fromkeys(dropped))
    return found, f"dropped from the names, as wrapper classes add it: {prefixes}" if prefixes else ""


def _without_segments(name: str, dropped: list[str]) -> str:
    parts = name.split(".")
    dropped += [f"{each}." for each in parts if each in ANYWHERE]
    return ".".join(each for each in parts if each not in ANYWHERE)
