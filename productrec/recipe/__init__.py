"""The recipe: every setting of every stage, one module a section."""

from productrec.recipe.whole import (
    Recipe,
    build_recipe,
    change_recipe,
    find_settings,
    list_settings,
    load_recipe,
    name_table,
    save_recipe,
    select_settings,
    suggest_key,
)

__all__ = [
    "Recipe",
    "build_recipe",
    "change_recipe",
    "find_settings",
    "list_settings",
    "load_recipe",
    "name_table",
    "save_recipe",
    "select_settings",
    "suggest_key",
]
