"""General Pair Weighting's three similarities, computed from weights, against Table 1 of Wang et al., CVPR 2019."""

import pytest

from productrec.losses.catalogue import list_losses, list_similarities
from productrec.losses.centres.margin_softmax import MarginSoftmax
from productrec.losses.engine.mining import HardestMining, MultiSimilarityMining, SemiHardMining
from productrec.losses.engine.weighing import Mining, PairWeighting
from productrec.losses.engine.weight_curves import find_similarities
from productrec.losses.pair.binomial_deviance import BinomialDeviance
from productrec.losses.pair.contrastive import Contrastive
from productrec.losses.pair.lifted_structure import LiftedStructure
from productrec.losses.pair.multi_similarity import MultiSimilarity
from productrec.losses.pair.n_pair import NPair
from productrec.losses.pair.triplet import Triplet
from productrec.losses.proxy.proxy_nca import ProxyNCA

S, N, P = "self", "negative relative", "positive relative"
TABLE: dict[str, tuple[PairWeighting, Mining | None, tuple[str, ...]]] = {
    "contrastive": (Contrastive(), None, (S,)),
    "binomial deviance": (BinomialDeviance(), None, (S,)),
    "triplet": (Triplet(), None, (P,)),
    "lifted structure": (LiftedStructure(), None, (N,)),
    # The mining alone is P: its weighting is of the other two.
    "multi-similarity, weighting": (MultiSimilarity(), None, (S, N)),
    "multi-similarity": (MultiSimilarity(), MultiSimilarityMining(), (S, N, P)),
    # NCA's numerator alone holds the positive: as Proxy-NCA has it, the weight is a share among negatives.
    "NCA, over the negatives": (ProxyNCA(), None, (N,)),
    # The table has N alone. But a negative's weight is e^n / (e^p + sum e^n): the more similar the positive, the
    # smaller it is, for all negatives alike. What distinguishes one negative from the next is N.
    "N-pair": (NPair(), None, (N, P)),
}


@pytest.mark.parametrize(("loss", "mining", "similarities"), TABLE.values(), ids=TABLE)
def test_the_similarities_are_those_of_the_table(
    loss: PairWeighting, mining: Mining | None, similarities: tuple[str, ...]
) -> None:
    assert find_similarities(loss, mining) == similarities


def test_the_hinge_of_lifted_structure_follows_positives_where_it_may_close() -> None:
    """With the paper's margin of 1, three positives and twelve negatives, it never does."""
    assert find_similarities(LiftedStructure(margin=-4.0)) == (N, P)


def test_mining_adds_the_similarities_that_it_chooses_by() -> None:
    assert find_similarities(Contrastive(), SemiHardMining()) == (S, P)
    assert find_similarities(Contrastive(), HardestMining()) == (S, N)


def test_softmax_margins_of_angle_look_at_the_positive_itself() -> None:
    # A margin of similarity shifts p, whatever it is; one of angle costs more at a right angle than near the centre.
    assert find_similarities(MarginSoftmax(4.0, margin=0.3), positive_count=1) == (N, P)
    assert find_similarities(MarginSoftmax(4.0, margin_rad=0.3), positive_count=1) == (S, N, P)


def test_every_loss_of_the_catalogue_tells_its_similarities() -> None:
    known = list_similarities()
    assert known.keys() == list_losses().keys()
    assert known["margin"] == (S,)  # its mining draws by chance and is left out
    assert known["multi_similarity"] == (S, N, P)
    assert known["triplet_centre"] == (N, P)  # of other centres only the nearest has a weight
    assert known["proxy_anchor"] == (S, N)  # as Multi-Similarity, between a centre and the batch
    assert known["soft_triple"] is None  # a class's weight is shared by its centres
    assert all(similarities for name, similarities in known.items() if name != "soft_triple")
