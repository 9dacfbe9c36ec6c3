"""A recipe without the paths of the machine that it was written on."""

from pathlib import Path
from typing import Any

import pytest

from productrec.recipe import build_recipe
from productrec.recipe.portable import CONTRACT, forget_places

HERE = "/home/me/competition"
PLACES: dict[str, Any] = {
    "name": "mine",
    "competition": f"{HERE}/own.yaml",
    "device": "cuda:1",
    "runs": f"{HERE}/runs",
    "data": {"source": HERE, "table": f"{HERE}/table", "images": f"{HERE}/images", "findings": f"{HERE}/f.csv"},
    "model": {"pretrained": f"{HERE}/weights.safetensors", "weights_folder": f"{HERE}/weights"},
    "train": {"pseudo_labels": f"{HERE}/labels"},
    "predict": {"tta": f"{HERE}/shelf.yaml", "index_address": "http://there:1234", "member_weights": {"a.b": 2.0}},
    "submit": {"out": f"{HERE}/new.csv", "sample": f"{HERE}/sample.csv"},
    "members": {"one": {"data": {"findings": f"{HERE}/g.csv"}, "predict": {"tta": f"{HERE}/other.yaml"}}, "two": {}},
}


def test_no_path_is_left_and_what_decides_the_answer_stays() -> None:
    recipe = build_recipe(PLACES | {"seed": 7})
    assert HERE in str(recipe.dump())
    forgotten = forget_places(recipe.dump())
    assert HERE not in str(forgotten) and "there:1234" not in str(forgotten)
    again = build_recipe(forgotten)
    assert again.seed == 7 and again.runs == Path("runs") and again.device == "auto"
    assert again.competition == CONTRACT and again.model.pretrained is True
    assert again.predict.tta == "plain" and again.predict.member_weights == {"a.b": 2.0}
    assert list(again.members) == ["one", "two"]
    assert forget_places(again.dump()) == forgotten


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_recipe_without_places_stays_as_it_is(pretrained: bool) -> None:
    values = build_recipe({"name": "mine", "model": {"pretrained": pretrained}, "predict": {"tta": "zoom"}}).dump()
    assert forget_places(values) == values
