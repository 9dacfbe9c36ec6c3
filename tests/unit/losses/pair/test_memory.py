import pytest
import torch
from torch import Tensor
from torch.nn import functional

from productrec.errors import RecipeError, TrainingError
from productrec.losses.build import build_metric_loss
from productrec.losses.catalogue import list_losses
from productrec.losses.engine.comparison import Comparison
from productrec.losses.engine.memory import CrossBatchMemory
from productrec.losses.engine.mining import MultiSimilarityMining
from productrec.losses.engine.pair_module import PairModule
from productrec.losses.engine.pair_weighting import compute_pair_loss
from productrec.losses.pair.contrastive import Contrastive
from productrec.losses.pair.multi_similarity import MultiSimilarity

LOSS = PairModule(Contrastive(positive_margin=2.0, negative_margin=0.0))


def draw(step: int, rows: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    embeddings = functional.normalize(torch.randn(rows, 5, generator=generator), dim=1)
    return embeddings, torch.randint(3, (rows,), generator=generator)


def build(rows: int = 10, start_step: int = 0, weight: float = 1.0) -> CrossBatchMemory:
    return CrossBatchMemory(LOSS, rows=rows, embedding_dim=5, start_step=start_step, weight=weight)


def test_the_batch_is_compared_with_the_last_rows_and_never_with_itself() -> None:
    memory = build(weight=0.5)
    seen: list[tuple[Tensor, Tensor]] = []
    for step in range(6):
        embeddings, labels = draw(step)
        seen.append((embeddings, labels))
        found = memory(embeddings, labels)
        # By the definition: every pair of the batch with the ten newest rows, the row itself left out.
        known = torch.cat([one for one, _ in seen])[-10:]
        classes = torch.cat([one for _, one in seen])[-10:]
        total = torch.tensor(0.0)
        for row in range(4):
            for other in range(len(known)):
                if other == len(known) - 4 + row:
                    continue
                s = embeddings[row] @ known[other]
                total += (2.0 - s) if labels[row] == classes[other] else s.clamp(min=0)
        torch.testing.assert_close(found, LOSS(embeddings, labels) + 0.5 * total / 4)


def test_before_the_start_and_in_evaluation_nothing_is_remembered() -> None:
    memory = build(start_step=2)
    for step in range(2):
        assert memory(*draw(step)) == LOSS(*draw(step))
    memory.eval()
    assert memory(*draw(5)) == LOSS(*draw(5))
    assert memory.get_extra_state() == {"steps": 2, "next": 0, "filled": 0}
    memory.train()
    assert memory(*draw(6)) != LOSS(*draw(6))


def test_a_state_dict_is_complete() -> None:
    first, second = build(), build()
    for step in range(5):
        first(*draw(step))
    second.load_state_dict(first.state_dict())
    for step in range(5, 9):
        assert torch.equal(first(*draw(step)), second(*draw(step)))


def test_gradient_reaches_the_batch_alone() -> None:
    memory = build()
    memory(*draw(0))
    embeddings, labels = draw(1)
    leaf = embeddings.requires_grad_()
    memory(leaf, labels).backward()
    assert leaf.grad is not None
    assert not memory.embeddings.requires_grad


def test_an_anchor_alone_in_its_class_meets_older_images_of_it() -> None:
    memory = CrossBatchMemory(
        PairModule(MultiSimilarity(), MultiSimilarityMining()), rows=8, embedding_dim=2, start_step=0
    )
    rows = torch.eye(2)
    assert memory(rows, torch.tensor([0, 1])) == 0  # nobody has a positive
    turned = rows.flip(0).contiguous()
    assert memory(turned, torch.tensor([0, 1])) > 0
    expected = compute_pair_loss(
        Comparison(
            turned,
            torch.tensor([0, 1]),
            references=torch.cat([rows, turned]),
            reference_labels=torch.tensor([0, 1, 0, 1]),
            own_rows=torch.tensor([2, 3]),
        ),
        MultiSimilarity(),
        mining=MultiSimilarityMining(),
    )
    assert expected > 0


@pytest.mark.parametrize("name", ["nt_xent", "multi_similarity", "pair_logistic"])
def test_an_images_own_key_is_its_positive_with_one_image_a_class(name: str) -> None:
    """MoCo: a query, its key, and the keys of the batches before as negatives."""
    memory = build_metric_loss(
        list_losses()[name](),
        memory_rows=12,
        memory_start_step=0,
        memory_momentum=0.999,
        embedding_dim=5,
        class_count=12,
    )
    assert isinstance(memory, CrossBatchMemory)
    found = 0.0
    for step in range(3):
        queries, keys = draw(step)[0].requires_grad_(), draw(step + 10)[0]
        labels = torch.arange(4) + 4 * step
        alone = memory.loss(queries, labels)
        found = memory(queries, labels, keys) - alone
        slope = torch.autograd.grad(found, queries)[0]
        assert found > 0
        assert slope.abs().sum() > 0
    if name != "nt_xent":
        return
    known = torch.cat([draw(step + 10)[0] for step in range(3)])
    logits = queries.detach() @ known.T / 0.07
    torch.testing.assert_close(found.detach(), functional.cross_entropy(logits, torch.arange(4) + 8))


def test_a_batch_that_does_not_fit_and_settings_that_say_nothing_are_refused() -> None:
    with pytest.raises(TrainingError, match="must be at most 3 embeddings of 5 dimensions"):
        build(rows=3)(*draw(0))
    for settings in ({"rows": 0}, {"start_step": -1}, {"weight": 0.0}):
        with pytest.raises(RecipeError, match="memory: rows must be"):
            build(**settings)


def test_a_recipe_gives_any_pair_loss_a_memory() -> None:
    built = build_metric_loss(
        list_losses()["circle"](), memory_rows=64, memory_start_step=3, embedding_dim=5, class_count=3
    )
    assert isinstance(built, CrossBatchMemory)
    assert built.start_step == 3
    with pytest.raises(RecipeError, match=r"loss.memory.rows: must be 0 for soft_triple"):
        build_metric_loss(list_losses()["soft_triple"](), memory_rows=64, embedding_dim=5, class_count=3)
