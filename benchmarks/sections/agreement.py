"""Whether an accelerator computes what the CPU computes: embeddings, logits, losses, gradients, a step, and search.

The tolerances are about a hundred times what two CPU kernels differ by (2e-7 in embeddings and losses, 4e-6 in what a
step adds to the weights); activations in bfloat16, or weights rounded to TF32, are well beyond them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from productrec.losses.engine.mining import MultiSimilarityMining
from productrec.losses.engine.pair_module import PairModule
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.proxy.soft_triple import SoftTriple
from productrec.models.inference import ViewRecognizer
from productrec.recipe import Recipe, build_recipe
from productrec.retrieval.engine import build_engine, count_gpus, move_to_gpu
from productrec.runtime import set_seed
from sections.figures import Row
from sections.step import build_ready_trainer, draw_batch

_CLASSES, _DIM = 8, 64
_CPU = torch.device("cpu")


def check_agreement(device: torch.device) -> list[Row]:
    """Compute a small case in float32 on the CPU and on ``device`` and compare; each row says what it allows."""
    with without_tf32():
        return [
            *_compare_inference(device),
            *_compare_losses(device),
            *_compare_step(device, "multi_similarity"),
            *_compare_step(device, "soft_triple"),
            *_compare_step(device, "multi_similarity", backbone="tf_efficientnet_lite0", frozen=3),
            *_compare_search(device),
        ]


@contextmanager
def without_tf32() -> Iterator[None]:
    """Float32 products in full precision, as the CPU has them."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution


def compute_difference(one: Tensor, other: Tensor) -> float:
    """Norm of the difference over the norm of ``other``; infinite where either is not finite."""
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    if not (one.isfinite().all() and other.isfinite().all()):
        return float("inf")
    return float((one - other).norm() / other.norm().clamp(min=1e-30))


def build_row(what: str, seen: float, most: float) -> Row:
    """A relative difference that was seen, and the most that is allowed."""
    return Row("agreement", f"{what}, relative difference", f"{seen:.1e}", f"<= {most:.0e}", seen <= most)


def _build_small_recipe(metric: str, backbone: str = "regnetx_002", frozen: int = 0) -> Recipe:
    # SGD, because Adam's first step divides each gradient by its own size and makes rounding as large as the step.
    training = {"side_px": 64, "batch_size": 32, "optimizer": "sgd", "learning_rate": 0.01, "warmup_epochs": 0}
    training["freeze_stages"] = frozen
    return build_recipe(
        {
            "name": "agreement",
            "model": {"backbone": backbone, "pretrained": frozen > 0, "embedding_dim": _DIM},
            "loss": {"metric": metric},
            "train": {**training, "sampler": "pk", "centre_rate_factor": 1, "ema_decay": 0.998, "precision": "float32"},
        }
    )


def _compare_inference(device: torch.device) -> list[Row]:
    recipe = _build_small_recipe("multi_similarity")
    images, _ = draw_batch(recipe, _CLASSES)
    seen = []
    for place in (device, _CPU):
        network = build_ready_trainer(recipe, _CLASSES, place, torch.float32).recognizer.eval()
        recognise = ViewRecognizer(network, [(0, False, 0), (0, True, 0)], device=place, dtype=torch.float32)
        seen.append(recognise([images])[1])
    ours, reference = seen
    return [
        build_row("embeddings, two views", compute_difference(ours.embeddings, reference.embeddings), 5e-5),
        build_row("logits, two views", compute_difference(ours.logits, reference.logits), 5e-5),
    ]


def _compare_losses(device: torch.device) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(_CLASSES).repeat_interleave(4)
    # Noise around one direction a class: similarities as a half-trained network has them.
    rows = torch.randn(_CLASSES, _DIM, generator=generator)[labels]
    rows = nn.functional.normalize(rows + 1.5 * torch.randn(rows.shape, generator=generator), dim=1)
    set_seed(0)
    losses: dict[str, nn.Module] = {
        "Multi-Similarity": PairModule(MultiSimilarity(), MultiSimilarityMining()),
        "SoftTriple": SoftTriple().build(_DIM, _CLASSES),
    }
    table = []
    for name, loss in losses.items():
        values, gradients = [], []
        for place in (device, _CPU):
            embeddings = rows.to(place, copy=True).requires_grad_()
            value = loss.to(place)(embeddings, labels.to(place))
            (gradient,) = torch.autograd.grad(value, embeddings)
            values.append(value)
            gradients.append(gradient)
        table.append(build_row(f"{name} loss", compute_difference(*values), 1e-5))
        table.append(build_row(f"{name} loss, gradient", compute_difference(*gradients), 1e-4))
    return table


def _compare_step(device: torch.device, metric: str, *, backbone: str = "regnetx_002", frozen: int = 0) -> list[Row]:
    """One training step, clipping and moving average included; ``frozen`` stages of the backbone stay as they are."""
    recipe = _build_small_recipe(metric, backbone, frozen)
    images, labels = draw_batch(recipe, _CLASSES)
    losses, updates, averages = [], [], []
    for place in (device, _CPU):
        trainer = build_ready_trainer(recipe, _CLASSES, place, torch.float32)
        assert trainer.average is not None
        modules: tuple[nn.Module, ...] = (trainer.recognizer, trainer.objective)
        before = [parameter.detach().clone() for module in modules for parameter in module.parameters()]
        losses.append(trainer.run_step(images, labels)["loss"])
        after = [parameter.detach() for module in modules for parameter in module.parameters()]
        updates.append(torch.cat([(new - old).flatten() for new, old in zip(after, before, strict=True)]))
        averages.append(torch.cat([value.float().flatten() for value in trainer.average.network.state_dict().values()]))
    # A trained network's clipped activations make more of rounding: two CPU kernels differ by 4e-3 there.
    most = 2e-2 if frozen else 1e-3
    name = metric.replace("_", "-") + (f", {backbone} with {frozen} stages frozen" if frozen else "")
    return [
        build_row(f"a training step, {name}: loss", compute_difference(*losses), 1e-5),
        build_row(f"a training step, {name}: what it adds to the weights", compute_difference(*updates), most),
        build_row(f"a training step, {name}: averaged weights", compute_difference(*averages), 1e-5),
    ]


def _compare_search(device: torch.device) -> list[Row]:
    """FAISS, where it finds a GPU on that, against a matrix product and a sort on ``device``."""
    generator = torch.Generator().manual_seed(0)
    gallery, queries = (
        nn.functional.normalize(torch.randn(rows, 128, generator=generator), dim=1) for rows in (5000, 200)
    )
    neighbours = 50
    engine = move_to_gpu(build_engine(gallery.numpy()))
    similarities, rows = engine.search(queries.numpy(), neighbours)
    expected, expected_rows = (queries.to(device) @ gallery.to(device).T).topk(neighbours, dim=1)
    # Equal similarities may stand in either order, so the rows are compared by what they are worth.
    worth = np.take_along_axis((queries.double() @ gallery.double().T).numpy(), rows, axis=1)
    same = float((rows == expected_rows.cpu().numpy()).mean())
    where = "on a GPU" if count_gpus() else "on the CPU"
    return [
        build_row(
            f"FAISS {where} against a matrix product: similarities",
            compute_difference(torch.from_numpy(similarities), expected),
            1e-5,
        ),
        build_row(
            f"FAISS {where}: similarities against those of its rows",
            compute_difference(torch.from_numpy(similarities), torch.from_numpy(worth)),
            1e-5,
        ),
        Row("agreement", f"FAISS {where}: share of equal rows", f"{same:.4f}", ">= 0.999", same >= 0.999),
    ]
