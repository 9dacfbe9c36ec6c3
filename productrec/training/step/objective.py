"""The joint objective: weighted sum of the metric, title and classification terms, each also reported apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from productrec.losses.classification.cross_entropy import compute_classification_loss
from productrec.losses.cross_modal.objective import CrossModalObjective
from productrec.losses.engine.diagnostics import PairDiagnostics
from productrec.losses.engine.module import MetricModule
from productrec.models.recognizer import Recognized
from productrec.training.tricks.jigsaw import Jigsaw
from productrec.training.tricks.mixing import Mixture


class JointLoss(nn.Module):
    """``metric_weight * metric(embeddings) + classification_weight * cross-entropy(logits)``, in float32."""

    def __init__(
        self,
        metric: MetricModule | None,
        *,
        metric_weight: float,
        classification_weight: float,
        label_smoothing: float,
        jigsaw: Jigsaw | None = None,
        classify: Callable[..., Tensor] = compute_classification_loss,
        titles: CrossModalObjective | None = None,
        titles_weight: float = 1.0,
    ) -> None:
        """``classify``: the classification term, called as `compute_classification_loss` is; ``titles``: title term."""
        super().__init__()
        self.metric = metric if metric_weight > 0 else None
        self.titles = titles if titles_weight > 0 else None
        self.jigsaw = jigsaw
        self._titles_weight = titles_weight
        self._classify = classify
        self._metric_weight = metric_weight
        self._classification_weight = classification_weight
        self._label_smoothing = label_smoothing

    @property
    def looks_at_pairs(self) -> bool:
        """Whether a term needs the embeddings of a whole batch."""
        return self.metric is not None or self.titles is not None

    @property
    def key_momentum(self) -> float:
        """Decay of the momentum encoder whose keys the metric term wants; 0 for none."""
        return 0.0 if self.metric is None else self.metric.momentum

    def forward(
        self, recognized: Recognized, labels: Tensor, mixture: Mixture | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total (scalar, with its graph) and each unweighted term (detached), for class positions (B,).

        A mixed batch has the classification term alone.
        """
        total, terms = recognized.logits.new_zeros(()), dict[str, Tensor]()
        if mixture is None:
            total, terms = self.compare(recognized.embeddings, labels)
        classification, classification_terms = self.classify(recognized.logits, labels, mixture)
        return total + classification, terms | classification_terms

    def compare(
        self, embeddings: Tensor, labels: Tensor, keys: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The metric term alone, of embeddings (M, D): weighted, and as it is; zero and none where there is none."""
        if self.metric is None:
            return embeddings.new_zeros(()), {}
        metric: Tensor = self.metric(embeddings, labels, *(() if keys is None else (keys,)))
        return self._metric_weight * metric, {"metric": metric.detach()}

    def compare_titles(self, images: Tensor, titles: Tensor, groups: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The title term: weighted, and its parts as they are; zero and none where there is none.

        Args:
            images: (P, D) embeddings of images that have a title.
            titles: (P, D) embeddings of their titles.
            groups: (P,) equal for what belongs together.
        """
        if self.titles is None or not len(images):
            return images.new_zeros(()), {}
        computed = self.titles(images, titles, groups, groups)
        return self._titles_weight * computed.total, {f"titles_{name}": value for name, value in computed.terms.items()}

    def classify(
        self, logits: Tensor, labels: Tensor, mixture: Mixture | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The classification term alone, a mean over the rows of ``logits``: likewise."""
        if not self._classification_weight > 0:
            return logits.new_zeros(()), {}
        smoothing = self._label_smoothing
        classification = self._classify(logits, labels, label_smoothing=smoothing)
        if mixture is not None:
            other = self._classify(logits, mixture.partners, label_smoothing=smoothing)
            classification = mixture.share * classification + (1 - mixture.share) * other
        return self._classification_weight * classification, {"classification": classification.detach()}

    def list_statistics(self) -> list[Tensor]:
        """Buffers that a forward pass may move, but for a memory's, which `forget_last` puts right."""
        with_memory = [part for part in (self.metric, self.titles) if part is not None]
        theirs = {id(buffer) for part in with_memory for buffer in part.buffers()}
        own = [buffer for buffer in self.buffers() if id(buffer) not in theirs]
        return [buffer for part in with_memory for buffer in part.list_statistics()] + own

    @property
    def needs_positives(self) -> bool:
        """Whether the metric term needs two images of a class: it has no centres to stand for one, nor images' keys."""
        return self.metric is not None and self.metric.needs_positives

    def forget_last(self) -> None:
        """Undo what the last batch left in a memory, where there is one: its step is not taken."""
        for part in (self.metric, self.titles):
            if part is not None:
                part.forget_last()

    def diagnose(self, embeddings: Tensor, labels: Tensor) -> PairDiagnostics | None:
        """The pairs of a batch (M, D) with labels (M,), where there is a metric term."""
        return None if self.metric is None else self.metric.diagnose(embeddings, labels)

    def iterate_centres(self) -> Iterator[nn.Parameter]:
        """Centres of the metric term."""
        return iter(()) if self.metric is None else self.metric.iterate_centres()

    def get_centres(self) -> dict[str, Tensor]:
        """``centres`` (C, K, D) of the metric term and, where some were merged, ``sizes`` (C, K); empty without any."""
        return {} if self.metric is None else self.metric.get_centres()

    def iterate_other_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What else the objective learns."""
        centres = {id(parameter) for parameter in self.iterate_centres()}
        return ((name, parameter) for name, parameter in self.named_parameters() if id(parameter) not in centres)
