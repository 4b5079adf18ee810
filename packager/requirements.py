"""From the names a script imports to the distributions that provide them; nothing is guessed."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata

# import name -> what provides it, for what the challenge's scripts import and few machines have installed.  A name
# that starts with `#` is a comment: no index has the distribution under that name.
ELSEWHERE: Mapping[str, str] = {
    "apex": "# apex: built from source, https://github.com/NVIDIA/apex",
    "brotli": "brotli",
    "constriction": "constriction",
    "datasets": "datasets",
    "flash_attn": "flash-attn",
    "flash_attn_2_cuda": "flash-attn",
    "flash_attn_3": "# flash_attn_3: FlashAttention 3, built in `hopper/` of https://github.com/Dao-AILab/flash-attention",
    "flash_attn_interface": (
        "# flash_attn_interface: FlashAttention 3, built in `hopper/` of https://github.com/Dao-AILab/flash-attention"
    ),
    "huggingface_hub": "huggingface-hub",
    "kernels": "kernels",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "sentencepiece": "sentencepiece",
    "tiktoken": "tiktoken",
    "torch": "torch",
    "tqdm": "tqdm",
    "transformer_engine": "transformer-engine",
    "triton": "triton",
    "wandb": "wandb",
    "zstandard": "zstandard",
}


def is_known(name: str) -> bool:
    """Whether a distribution for the import name is installed here, or stands in the table."""
    return name in ELSEWHERE or name in _installed()


def requirement(name: str) -> str:
    """The line of requirements.txt for an import name: `name==version` of what is installed here.

    A name that is only in the table gives its distribution without a version, or a comment that says how it is built.

        >>> requirement("flash_attn_interface")[:24]
        '# flash_attn_interface: '
    """
    if name in _installed():
        distribution = _installed()[name]
        return f"{distribution}=={_public(metadata.version(distribution))}"
    return ELSEWHERE.get(name, f"# {name}: no installed distribution provides it")


def requirements(needed: Iterable[str], optional: Iterable[str] = ()) -> str:
    """The text of requirements.txt.  needed, optional: import names; the optional ones become comments."""
    lines = {requirement(name) for name in needed}
    wished = {requirement(name) for name in optional} - lines
    lines |= {line if line.startswith("#") else f"# optional: {line}" for line in wished}
    return "".join(f"{line}\n" for line in sorted(lines, key=lambda line: (line.startswith("#"), line.lower())))


def _public(version: str) -> str:
    """Without the local part: no index has torch 2.13.0+cpu."""
    return version.partition("+")[0]


@cache
def _installed() -> dict[str, str]:
    """Import name -> distribution; where several share a name, the first by name that is no namespace of others."""
    found = {}
    for name, distributions in metadata.packages_distributions().items():
        normal = {re.sub(r"[-_.]+", "-", each).lower(): each for each in sorted(distributions)}
        found[name] = normal.get(re.sub(r"[-_.]+", "-", name).lower(), min(normal.values()))
    return found
