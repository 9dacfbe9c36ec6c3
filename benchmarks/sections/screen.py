"""The screen: every metric loss trains a recipe's neck on cached features, in the same steps on the same batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from productrec.data.curation.hold_out import split_by_class
from productrec.data.samplers import EpochSampler
from productrec.losses.build import build_metric_loss
from productrec.losses.catalogue import list_losses
from productrec.losses.declared import MetricLoss
from productrec.losses.engine.module import MetricModule
from productrec.losses.pair.nt_xent import NTXent
from productrec.metrics.retrieval import compute_retrieval
from productrec.models.backbone import Normalisation
from productrec.models.neck import EmbeddingNeck
from productrec.models.recognizer import ClassificationHead, Recognized, Recognizer
from productrec.recipe import Recipe
from productrec.runtime import set_seed
from productrec.training.step.objective import JointLoss
from productrec.training.step.optimiser import build_optimizer
from productrec.training.step.schedule import compute_rate_factor
from productrec.training.step.trainer import Trainer
from sections.halves import Halves
from sections.library_losses import LibraryMultiSimilarity, LibrarySoftTriple

EMBEDDING_DIM = 128
UNTRAINED = ("raw", "whitened")
_CPU = torch.device("cpu")
_DEFAULTS = Recipe(name="defaults").train  # the trainer's settings are a recipe's defaults
_HELD_OUT = 0.25  # of the classes to train on, for choosing the learning rate
_WARMUP = 0.1  # of the steps
# A recipe's is 100 times the backbone's rate. The rates here are of a neck, which may be ten times a backbone's.
_CENTRE_RATE_FACTOR = 10.0

Build = Callable[[Sequence[int]], MetricModule]


@dataclass(frozen=True)
class Method:
    """A way to train: ``build`` makes the loss of class sizes, None for cross-entropy; and K of its PK batches.

    ``is_labelled``: whether classes are known; else each image is its own class.
    """

    build: Build | None
    images_per_class: int = 4
    is_labelled: bool = True


@dataclass(frozen=True)
class Budget:
    """What each method may spend: steps, images a step, and learning rates to choose from."""

    steps: int
    batch_size: int
    rates: tuple[float, ...]


def list_methods() -> dict[str, Method]:
    """Every way to train by its name: all metric losses at their defaults, and what they are compared with."""
    methods = {"cross_entropy": Method(None)}
    methods |= {name: Method(partial(_build, loss())) for name, loss in list_losses().items()}
    methods["library_multi_similarity"] = Method(partial(_build, LibraryMultiSimilarity()))
    methods["library_soft_triple"] = Method(partial(_build, LibrarySoftTriple()))
    methods["unlabelled"] = Method(partial(_build, NTXent()), images_per_class=2, is_labelled=False)
    return methods


def embed_untrained(name: str, features: np.ndarray, halves: Halves) -> np.ndarray:
    """Unit embeddings of the unseen images without any training: of `UNTRAINED`, by plain features (N, F).

    Whitening takes the mean and the strongest directions of the images to train on, as many as an embedding has.
    """
    unit = _normalise(features)
    if name == UNTRAINED[0]:
        return np.asarray(unit[halves.test])
    mean = unit[halves.train].mean(axis=0)
    _, strengths, directions = np.linalg.svd(unit[halves.train] - mean, full_matrices=False)
    kept = min(EMBEDDING_DIM, int((strengths > strengths[0] * 1e-4).sum()))
    return _normalise((unit[halves.test] - mean) @ (directions[:kept] / strengths[:kept, None]).T)


def embed_trained(
    method: Method, features: np.ndarray, labels: np.ndarray, halves: Halves, budget: Budget, seed: int
) -> tuple[np.ndarray, float]:
    """Unit embeddings of the unseen images by a neck that was trained on the others, and the learning rate it had.

    The rate is the one whose MAP@R is best on a quarter of the classes to train on, held out; then all are trained on.
    Without labels no class can be held out, and the middle one is taken (of an even number, the lower). Nothing here
    looks at a label of an unseen image, nor at its features before the neck is finished.

    Args:
        method: what to train with.
        features: (V, N, F) float32 through each view, the plain one first.
        labels: (N,) class positions.
        halves: rows of ``features``.
        budget: of each training.
        seed: decides the held-out classes, initial weights and batches.
    """
    rates = sorted(budget.rates)
    rate = rates[(len(rates) - 1) // 2]
    if method.is_labelled and len(rates) > 1:
        held = split_by_class(labels[halves.train], _HELD_OUT, seed)
        parts = Halves(halves.train[~held], halves.train[held])
        scores = []
        for tried in rates:
            network = _train(method, features, labels, parts.train, budget, tried, seed)
            retrieval = compute_retrieval(_embed(network, features[0][parts.test]), labels[parts.test])
            scores.append(retrieval.measure()["map@r"])
        rate = rates[int(np.argmax(scores))]
    network = _train(method, features, labels, halves.train, budget, rate, seed)
    return _embed(network, features[0][halves.test]), rate


class FeatureRecognizer(Recognizer):
    """A recipe's neck on features (B, F) in the place of images; its head tells nothing and is never trained."""

    def __init__(self, feature_dim: int, head: nn.Module) -> None:
        neck = EmbeddingNeck(feature_dim, EMBEDDING_DIM)
        unused = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        super().__init__(nn.Identity(), nn.Identity(), neck, head, unused)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Recognized:
        """Recognise features (B, F)."""
        return self.recognise_features(images)


class EmbeddingClassifier(FeatureRecognizer):
    """Its head stands on the embedding before that is brought to unit norm, so that cross-entropy trains the neck."""

    neck: EmbeddingNeck

    def forward(self, images: Tensor) -> Recognized:
        """Recognise features (B, F)."""
        hidden = self.neck.norm(self.neck.linear(images))
        return Recognized(functional.normalize(hidden, dim=1), self.head(hidden))


def _build(loss: MetricLoss, class_sizes: Sequence[int]) -> MetricModule:
    return build_metric_loss(loss, embedding_dim=EMBEDDING_DIM, class_count=len(class_sizes), class_sizes=class_sizes)


def _train(
    method: Method, features: np.ndarray, labels: np.ndarray, rows: np.ndarray, budget: Budget, rate: float, seed: int
) -> Recognizer:
    """A network that was trained on some rows of features by the trainer that recipes have."""
    set_seed(seed)
    positions = np.unique(labels[rows], return_inverse=True)[1] if method.is_labelled else np.arange(len(rows))
    trainer = _build_trainer(method, features.shape[2], np.bincount(positions).tolist(), budget, rate)
    sampler = EpochSampler(positions, batch_size=budget.batch_size, images_per_class=method.images_per_class, seed=seed)
    trainer.recognizer.train()
    trainer.objective.train()
    while trainer.progress.step < budget.steps:
        # An image begins with a view by chance, and shows another one when the epoch draws it again.
        first = np.random.default_rng([seed, sampler.epoch]).integers(len(features), size=len(rows))
        for batch in sampler:
            drawn = np.array([draw.row for draw in batch])
            views = (first[drawn] + [draw.occurrence for draw in batch]) % len(features)
            shown = torch.from_numpy(features[views, rows[drawn]])
            trainer.run_step(shown, torch.from_numpy(positions[drawn]))
            if trainer.progress.step == budget.steps:
                break
        sampler.epoch += 1
    return trainer.recognizer


def _build_trainer(
    method: Method, feature_dim: int, class_sizes: Sequence[int], budget: Budget, rate: float
) -> Trainer:
    recognizer: Recognizer
    if method.build is None:
        recognizer = EmbeddingClassifier(feature_dim, ClassificationHead(EMBEDDING_DIM, len(class_sizes), dropout=0.0))
        objective = JointLoss(None, metric_weight=0.0, classification_weight=1.0, label_smoothing=0.0)
    else:
        recognizer = FeatureRecognizer(feature_dim, ClassificationHead(feature_dim, 1, dropout=0.0))
        objective = JointLoss(
            method.build(class_sizes), metric_weight=1.0, classification_weight=0.0, label_smoothing=0.0
        )
    optimizer = build_optimizer(
        _DEFAULTS.optimizer,
        backbone=recognizer.backbone,
        heads=[*recognizer.iterate_head_parameters(), *objective.iterate_other_parameters()],
        centres=objective.iterate_centres(),
        learning_rate=rate,
        head_rate_factor=_DEFAULTS.head_rate_factor,
        centre_rate_factor=_CENTRE_RATE_FACTOR,
        weight_decay=_DEFAULTS.weight_decay,
    )
    return Trainer(
        recognizer,
        objective,
        optimizer,
        device=_CPU,
        dtype=torch.float32,
        schedule=partial(compute_rate_factor, warmup_steps=round(_WARMUP * budget.steps), total_steps=budget.steps),
        gradient_clip=_DEFAULTS.gradient_clip,
    )


@torch.inference_mode()
def _embed(network: Recognizer, features: np.ndarray) -> np.ndarray:
    """Unit embeddings (N, D) of features (N, F)."""
    network.eval()
    embedded: np.ndarray = network(torch.from_numpy(features)).embeddings.numpy()
    return embedded


def _normalise(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
