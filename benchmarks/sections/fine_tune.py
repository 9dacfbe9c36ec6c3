"""Fine-tuning as `productrec train` does it: a table of one half's images, a recipe, and the unseen half embedded."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from productrec.artifacts import write_file
from productrec.assembly.embedding_requests import EmbeddingRequest
from productrec.data.table import load_table
from productrec.losses.catalogue import list_losses
from productrec.recipe import Recipe, build_recipe, change_recipe, load_recipe
from productrec.retrieval.embedding_set import load_embedding_set
from productrec.settings.text import flatten, parse_override
from productrec.stages.embed import run_embed
from productrec.stages.ingest import run_ingest
from productrec.stages.train import run_train
from sections.halves import Halves, Pictures

UNLABELLED = "unlabelled"
_UNLABELLED_RECIPE = Path(__file__).resolve().parents[2] / "pipelines" / "unlabelled.yaml"
_LARGER = 4  # times the batch, for the loss whose authors ask for large ones
_LIBRARY = "sections.library_losses"
_SPECIAL: dict[str, dict[str, Any]] = {
    "defaults": {"loss.metric_weight": 0.5, "loss.classification_weight": 1.0},
    "cross_entropy": {"loss.metric": "none", "loss.classification_weight": 1.0},
    "circle_cached": {"loss.metric": "circle"},
    "library_multi_similarity": {"loss.metric": f"{_LIBRARY}:LibraryMultiSimilarity"},
    "library_soft_triple": {"loss.metric": f"{_LIBRARY}:LibrarySoftTriple", "train.sampler": "shuffle"},
    UNLABELLED: {},
}


@dataclass(frozen=True)
class FineTuning:
    """What every method has alike: the network, passes over the images, their side, images a step, and rates.

    ``settings``: any others of a recipe, as ``key=value``.
    """

    backbone: str
    epochs: int
    side_px: int
    batch_size: int
    rate: float
    settings: tuple[str, ...] = ()


def list_fine_tuned() -> list[str]:
    """Every method by its name.

    A metric loss alone; ``defaults``, a recipe's two terms; ``cross_entropy``, the classification term alone, whose
    head stands on the pooled features, so that the embedding is a random projection of these; ``circle_cached``, with
    batches four times as large, by gradient caching; the library's two; and ``unlabelled``, which is
    ``pipelines/unlabelled.yaml``.
    """
    return [*list_losses(), *_SPECIAL]


def describe_method(method: str, budget: FineTuning) -> str:
    """What a method has otherwise than the others, for a table."""
    if method == "circle_cached":
        return f"batches of {_LARGER * budget.batch_size} in chunks of {budget.batch_size}, twice the rate"
    if method == "cross_entropy":
        return "the embedding is a random projection of what is trained"
    return "half the epochs, each of which shows each image twice" if method == UNLABELLED else ""


def count_epochs(method: str, budget: FineTuning) -> int:
    """Epochs in which a method sees as many images as the others: one without labels shows each of them twice."""
    return max(1, budget.epochs // 2) if method == UNLABELLED else budget.epochs


def write_source(folder: Path, pictures: Pictures, halves: Halves, *, is_labelled: bool) -> None:
    """A table by hand of pictures: the classes to learn from in ``train``, the unseen ones in ``test``.

    Without labels each training image is its own class. Nothing is in ``val``, so no checkpoint is chosen by anything.
    """
    columns = ("image_id", "path", "label", "split")
    with write_file(folder / "images.csv") as path, path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for split, rows in (("train", halves.train), ("test", halves.test)):
            for row in rows.tolist():
                name = pictures.paths[row]
                known = is_labelled or split == "test"
                writer.writerow([name, name, f"class {pictures.labels[row]}" if known else f"image {name}", split])


def build_fine_tuning(
    method: str, budget: FineTuning, *, fixed: Mapping[str, Any], augmentation: str | None = None
) -> Recipe:
    """The recipe of a method.

    Args:
        method: of `list_fine_tuned`.
        budget: what it has as the others have it.
        fixed: settings that say where things lie, and the seed.
        augmentation: preset or file, where it is not the recipe's own.
    """
    recipe = load_recipe(_UNLABELLED_RECIPE) if method == UNLABELLED else build_recipe({"name": "base"})
    changes: dict[str, Any] = {
        "data.format": "table",
        "data.id_column": None,
        "data.label_column": None,
        "data.validation_fraction": 0.0,
        "model.backbone": budget.backbone,
        "model.pretrained": True,
        "model.embedding_dim": 128,
        "train.epochs": count_epochs(method, budget),
        "train.side_px": budget.side_px,
        "train.batch_size": budget.batch_size,
        "train.learning_rate": budget.rate,
        "train.head_rate_factor": 10.0,
        "train.freeze_norms": True,
        "predict.checkpoint": "last",
    }
    if method != UNLABELLED:
        changes |= {"loss.metric_weight": 1.0, "loss.classification_weight": 0.0}
    if method in list_losses():
        changes["loss.metric"] = method
    if augmentation is not None:
        changes["train.augmentation"] = augmentation
    changes |= _SPECIAL.get(method, {})
    if method == "circle_cached":
        changes |= {
            "train.batch_size": _LARGER * budget.batch_size,
            "train.chunk_size": budget.batch_size,
            "train.learning_rate": 2 * budget.rate,
        }
    for override in budget.settings:
        changes |= flatten(parse_override(override))
    return change_recipe(recipe, changes | dict(fixed), method)


def save_drawing_pipeline(path: Path) -> Path:
    """Write an augmentation for drawings, which must not be mirrored or cut; as `train.augmentation` names it."""
    import albumentations

    pipeline = albumentations.Affine(
        rotate=(-15, 15), scale=(0.85, 1.15), shear=(-9, 9), translate_percent=(-0.1, 0.1), fill=255, p=1.0
    )
    albumentations.save(albumentations.Compose([pipeline]), path, data_format="yaml")
    return path


def embed_fine_tuned(recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Train a recipe, or go on with it, and embed the unseen images by its last checkpoint.

    Returns:
        Unit embeddings (N, D) and class positions (N,) of the images in ``test``.
    """
    assert recipe.data.source is not None
    run_ingest(recipe.data.source, recipe.table, data=recipe.data)
    run_train(recipe, resume=True, allow_code=True)
    request = EmbeddingRequest("test", "plain", keep_logits=False)
    run_embed(recipe.run_folder, recipe, [request])
    embedded = load_embedding_set(request.get_folder(recipe.run_folder))
    labels = load_table(recipe.table, root=recipe.data.images).images.set_index("image_id")["label"]
    return np.array(embedded.embeddings), labels.loc[embedded.ids].to_numpy(dtype=np.int64)


def check_methods(names: Sequence[str], known: Sequence[str]) -> str | None:
    """What is wrong with some names of methods; None where they are known."""
    unknown = [name for name in names if name not in known]
    if not unknown:
        return None
    return f"must be some of {', '.join(known)}; got {', '.join(unknown)}."
