"""The text tower: titles as subwords in, embeddings of unit norm out, in the space of the images' embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from productrec.errors import RecipeError, TrainingError
from productrec.models.neck import EmbeddingNeck
from productrec.models.text.encoder_folder import TOKENISER, find_encoder_folder
from productrec.models.text.gru import GRUEncoder
from productrec.models.text.pretrained import PretrainedEncoder, build_encoder, load_encoder
from productrec.models.text.tokens import Tokeniser, read_tokeniser, train_tokeniser
from productrec.models.text.transformer import TransformerEncoder

LIGHT_TOWERS = ("gru", "transformer")  # begin with random weights, and learn their vocabulary from the titles at hand
MAX_TOKENS = 64
_WHERE = "text tower"


class TextTower(nn.Module):
    """An encoder of subwords, and a linear layer with unit norm behind it."""

    def __init__(self, encoder: nn.Module, feature_dim: int, embedding_dim: int, max_tokens: int) -> None:
        """``max_tokens``: subwords of a title that it reads at most, so many that callers leave a title."""
        super().__init__()
        self.encoder = encoder
        self.neck = EmbeddingNeck(feature_dim, embedding_dim, batch_norm=False)
        self.max_tokens = max_tokens
        self._frozen = False

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Embed titles.

        Args:
            ids: (B, L) int32 or int64, L at most ``max_tokens``.
            lengths: (B,) int64, subwords of each that count, at least 1; on any device, and fastest on the CPU.

        Returns:
            (B, D) float32 of unit norm, under autocast as well.

        Raises:
            TrainingError: titles are longer than the tower reads.
        """
        if ids.shape[1] > self.max_tokens:
            raise TrainingError(
                f"{_WHERE}: titles must have at most {self.max_tokens} subwords; got {ids.shape[1]}. "
                "Encode them with max_tokens of the tower."
            )
        embeddings: Tensor = self.neck(self.encoder(ids, lengths))
        return embeddings

    @property
    def config_json(self) -> str | None:
        """What a pretrained encoder is built by, for `build_text_tower`; None of a light one."""
        return self.encoder.config_json if isinstance(self.encoder, PretrainedEncoder) else None

    def freeze_encoder(self) -> None:
        """Have the encoder never learn: no gradient, no dropout; the linear layer behind it still does."""
        self._frozen = True
        self.encoder.requires_grad_(False)
        self.encoder.eval()

    def train(self, mode: bool = True) -> TextTower:
        """As any module's; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self._frozen:
            self.encoder.eval()
        return self

    def iterate_backbone_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters with pretrained weights; none of a light tower."""
        is_pretrained = isinstance(self.encoder, PretrainedEncoder)
        return (item for item in self.named_parameters() if is_pretrained and item[0].startswith("encoder."))

    def iterate_head_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters that began with random weights: all of a light tower, the neck of a pretrained one."""
        pretrained = {name for name, _ in self.iterate_backbone_parameters()}
        return (item for item in self.named_parameters() if item[0] not in pretrained)


def build_tokeniser(name: str, titles: Sequence[str], vocabulary_size: int) -> Tokeniser:
    """The tokeniser of a tower: learned from the titles for a light one, a pretrained one's own.

    Args:
        name: of the tower, see `build_text_tower`.
        titles: of the training rows, none of them blank; not looked at for a pretrained one.
        vocabulary_size: at most so many subwords; of no effect on a pretrained one.

    Raises:
        DataError, RecipeError: see `train_tokeniser`.
        TrainingError, ArtifactError: see `find_encoder_folder`, `read_tokeniser`.
    """
    if name in LIGHT_TOWERS:
        return train_tokeniser(titles, vocabulary_size)
    return read_tokeniser(find_encoder_folder(name) / TOKENISER)


def build_text_tower(
    name: str,
    *,
    vocabulary_size: int,
    embedding_dim: int,
    width: int = 256,
    layers: int = 1,
    heads: int = 4,
    dropout: float = 0.0,
    freeze: bool = False,
    max_tokens: int = MAX_TOKENS,
    config_json: str | None = None,
) -> TextTower:
    """Build a text tower.

    Args:
        name: ``gru`` or ``transformer`` with random weights; ``minilm``, a folder or a name on the Hugging Face hub for
            a pretrained encoder (the extra ``text``).
        vocabulary_size: of the tokeniser, `Tokeniser.vocabulary_size`.
        embedding_dim: D.
        width: features of a light encoder.
        layers: of a light encoder.
        heads: of the transformer's attention; they divide ``width``.
        dropout: of a light encoder; a pretrained one keeps its own.
        freeze: whether a pretrained encoder stays as it is.
        max_tokens: subwords of a title that are read at most; a pretrained encoder may have fewer positions.
        config_json: `TextTower.config_json` of a trained tower, whose weights are loaded afterwards: the encoder then
            begins with random weights, and its files are not looked for.

    Raises:
        RecipeError: settings that do not go together.
        TrainingError: see `find_encoder_folder`, `load_encoder`.
    """
    if name not in LIGHT_TOWERS:
        encoder = load_encoder(find_encoder_folder(name)) if config_json is None else build_encoder(config_json)
        return _build_pretrained(encoder, name, vocabulary_size, embedding_dim, freeze, max_tokens)
    if freeze:
        raise RecipeError(
            f"{_WHERE}: freeze must be false for {name}, whose weights are random; got true. Train it, or take minilm."
        )
    if name == "gru":
        return TextTower(GRUEncoder(vocabulary_size, width, layers, dropout), width, embedding_dim, max_tokens)
    if width % heads:
        raise RecipeError(f"{_WHERE}: heads must divide width; got {heads} and {width}. Take 4 heads and width 256.")
    transformer = TransformerEncoder(vocabulary_size, width, layers, heads, dropout, max_tokens)
    return TextTower(transformer, width, embedding_dim, max_tokens)


def _build_pretrained(
    encoder: PretrainedEncoder, name: str, vocabulary_size: int, embedding_dim: int, freeze: bool, max_tokens: int
) -> TextTower:
    if vocabulary_size > encoder.vocabulary_size:
        raise TrainingError(
            f"{_WHERE}: {name} must know all {vocabulary_size} subwords of the tokeniser; it knows "
            f"{encoder.vocabulary_size}. Build tokeniser and tower by one name."
        )
    tower = TextTower(encoder, encoder.feature_dim, embedding_dim, min(max_tokens, encoder.max_tokens or max_tokens))
    if freeze:
        tower.freeze_encoder()
    return tower
