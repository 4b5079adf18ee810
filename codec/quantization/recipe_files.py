"""Recipes as TOML: those that come with the toolkit, files of the user, and a recipe written as one."""

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

from codec.quantization.recipe import Recipe, parse_recipe
from codec.quantization.registry import one_of
from codec.storage.atomic_files import read_bytes
from codec.toml_text import toml_line

VERSION = 1
DEFAULT_RECIPE = "best"  # of whatever quantizes, as a command and as a function


def recipe_names() -> list[str]:
    """The recipes that come with the toolkit."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """One of `recipe_names()`, or a TOML file of the user.

    In a file, a rule whose names fit no tensor is an error, for they may be misspelt; but not one that a recipe of the
    toolkit has as well, so a copy of one does what it does.

    Raises: UsageError for an unknown name, key, treatment or coder, with the nearest known one;
    and as `Rule.of`.
    """
    text = recipe_text(name_or_path)
    if str(name_or_path).endswith(".toml"):
        recipe = parse_recipe(text, str(name_or_path))
        ours = {rule for name in recipe_names() for rule in load_recipe(name).rules}
        own = frozenset(rule.names for rule in recipe.rules if rule not in ours and rule.names != ("*",))
        return dataclasses.replace(recipe, strict=own)
    return parse_recipe(text, f"recipe {name_or_path}")


def recipe_text(name_or_path: str | Path) -> str:
    """The TOML of one of `recipe_names()`, or of a file of the user.  Raises: UsageError for an unknown name."""
    if str(name_or_path).endswith(".toml"):
        return read_bytes(name_or_path).decode("utf-8", "replace")
    name = one_of(str(name_or_path), recipe_names(), "recipe")
    return str((_folder() / f"{name}.toml").read_text("utf-8"))


def recipe_toml(recipe: Recipe) -> str:
    """A line for each key, a table for each rule, in order; `load_recipe` reads back an equal recipe, but `strict`.

    Raises: UsageError for a quantizer, step rule or granularity that is not registered.
    """
    head = {"version": VERSION, "name": recipe.name, "about": recipe.about, "coder": recipe.coder}
    tables = ["".join(toml_line(*item) for item in head.items())]
    tables += ["[[rules]]\n" + "".join(toml_line(*item) for item in rule.table().items()) for rule in recipe.rules]
    return "\n".join(tables)


def _folder() -> Any:
    return resources.files("codec") / "recipes"
