"""Every setting that a page names is one, every recipe it shows loads, and its Python compiles."""

import ast
import re
from typing import Any

import pytest
import yaml

from productrec.competitions.contract import Contract
from productrec.errors import ProductrecError
from productrec.recipe import Recipe, build_recipe, list_settings
from productrec.settings.text import flatten, parse_settings
from tests.docs.pages import ROOT, Page, parse_page, read_pages

PAGE = ROOT / "docs" / "drawn.md"
_SECTIONS = ("data", "model", "loss", "train", "predict", "match", "submit")
_KEY = re.compile(rf"((?:{'|'.join(_SECTIONS)})(?:\.\w+)+)(\.\*|\.|=.*|:.*)?")
_FILES = {"csv", "json", "jsonl", "log", "md", "png", "py", "tar", "yaml", "txt", "zip", "jpg", "safetensors"}


def check_keys(page: Page) -> list[str]:
    """Settings in backticks that are none."""
    keys = {info.key for info in list_settings()}
    known = {*keys, *(key[:end] for key in keys for end in range(len(key)) if key[end] == ".")}
    faults = []
    for literal in page.literals:
        match = _KEY.fullmatch(literal.text)
        if match and match[1] not in known and match[1].rpartition(".")[2] not in _FILES:
            faults.append(page.tell(literal, f"{literal.text}: no such setting"))
    return faults


def check_recipes(page: Page) -> list[str]:
    """Blocks of YAML that look like a recipe, a space of a sweep or a contract, and are none."""
    faults = []
    for block in page.blocks:
        if block.kind in ("yaml", "yml"):
            try:
                _read_block(block.text)
            except (ProductrecError, ValueError) as error:
                faults.append(page.tell(block, f"YAML: {' '.join(str(error).split())}"))
    return faults


def check_python(page: Page) -> list[str]:
    """Blocks of Python that do not compile."""
    faults = []
    for block in page.blocks:
        if block.kind in ("python", "py"):
            try:
                ast.parse(block.text)
            except SyntaxError as error:
                faults.append(page.tell(block, f"Python: {error}"))
    return faults


def test_settings_in_backticks_are_there() -> None:
    pages = read_pages()
    assert sum(1 for page in pages for literal in page.literals if _KEY.fullmatch(literal.text)) > 150
    assert [fault for page in pages for fault in check_keys(page)] == []


def test_blocks_of_yaml_load() -> None:
    pages = read_pages()
    assert sum(1 for page in pages for block in page.blocks if block.kind == "yaml") > 5
    assert [fault for page in pages for fault in check_recipes(page)] == []


def test_blocks_of_python_compile() -> None:
    pages = read_pages()
    assert sum(1 for page in pages for block in page.blocks if block.kind == "python") > 1
    assert [fault for page in pages for fault in check_python(page)] == []


@pytest.mark.parametrize("text", ["train.epoch", "train.epoch=3", "loss.metric.sharpness", "predict.view: flip"])
def test_a_setting_that_is_none_is_told(text: str) -> None:
    (told,) = check_keys(parse_page(f"Give `{text}`, not `train.epochs`, `loss.metric.tau=0.1` or `train.csv`.", PAGE))
    assert f"{text}: no such setting" in told


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: mine\ntrain: {epoch: 3}", "train.epoch"),
        ("members:\n  a: {train: {fold: few}}", "fold"),
        ("name: mine\ntrain: {epochs: 3", "YAML"),
        ("train.epoch: [1, 2]", "train.epoch"),
        (
            "name: own\ntitle: t\nmetric: top_one\nid_column: id\nprediction_column: p\ntrainable_splits: [train]",
            "metric",
        ),
    ],
)
def test_yaml_that_does_not_load_is_told(text: str, fault: str) -> None:
    (told,) = check_recipes(parse_page(f"```yaml\n{text}\n```", PAGE))
    assert fault in told


def test_python_that_does_not_compile_is_told() -> None:
    (told,) = check_python(parse_page("```python\nrun = = 1\n```", PAGE))
    assert "Python" in told


def _read_block(text: str) -> None:
    if "---\n" in text or not text.strip():
        return
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        values = parse_settings(text, where="block")  # says what is wrong
    if not isinstance(values, dict):
        return
    if _looks_like(values, Contract.model_fields) and "id_column" in values:
        Contract.model_validate(values)
    elif _looks_like(values, Recipe.model_fields):
        build_recipe({"name": "drawn", **parse_settings(text, where="block")})
    elif any(key.split(".")[0] in _SECTIONS for key in values if "." in str(key)):
        known = {info.key for info in list_settings()}
        unknown = [key for key in flatten(dict.fromkeys(values)) if key not in known]
        if unknown:
            raise ValueError(f"no settings: {', '.join(unknown)}")


def _looks_like(values: dict[str, Any], fields: Any) -> bool:
    return sum(key in fields for key in values) * 2 > len(values)
