"""Every re-ranking is declared once, by its file, and known without what it computes with."""

import subprocess
import sys

import pytest

from productrec.errors import ArtifactError, RecipeError
from productrec.retrieval.reranking.catalogue import describe_rerankings, list_rerankings
from productrec.retrieval.reranking.declared import Expansion
from productrec.retrieval.reranking.first_search import search_first
from tests.unit.retrieval.reranking.drawn import draw

NAMES = [
    "alpha_query_expansion",
    "class_bridged",
    "database_augmentation",
    "diffusion",
    "k_reciprocal",
    "label_aware",
    "neighbourhood_blending",
    "whitening",
]


def test_the_catalogue_lists_every_file():
    assert list(list_rerankings()) == NAMES
    for name, method in list_rerankings().items():
        assert method.get_name() == name and method().model_dump()["name"] == name
    assert all(described.formula and described.source and described.settings for described in describe_rerankings())


def test_the_catalogue_imports_nothing_heavy():
    code = (
        "import sys; from productrec.retrieval.reranking.catalogue import describe_rerankings; describe_rerankings(); "
        "print([name for name in ('faiss', 'scipy', 'torch', 'pandas') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_unknown_and_impossible_settings_are_refused(name):
    with pytest.raises(RecipeError, match=name):
        list_rerankings()[name](kk=3)
    with pytest.raises(RecipeError, match=name):
        list_rerankings()[name](**{next(iter(list_rerankings()[name].model_fields)): -1})


def test_methods_that_need_labels_say_so():
    first = search_first(draw(2, seed=1), draw(9), k=4)
    for name, method in list_rerankings().items():
        if method.needs_labels:
            with pytest.raises(ArtifactError, match=f"{name}: the gallery's rows must have labels"):
                method().rerank(first)
        else:
            assert method().rerank(first).rows.shape == (2, 4)
    augmented = list_rerankings()["database_augmentation"](same_class=True)
    with pytest.raises(ArtifactError, match="must have labels where same_class is on"):
        augmented.rerank(first)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_asked_gives_nothing(name):
    first = search_first(draw(0), draw(9), k=4, labels=draw(9).argmax(axis=1))
    method = list_rerankings()[name]()
    assert method.rerank(first).rows.shape == (0, 4)
    if isinstance(method, Expansion):
        assert [part.shape for part in method.expand(first)] == [(0, 8), (9, 8)]
