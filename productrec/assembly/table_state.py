"""Whether class probabilities still speak of an image table as it is now: the same images, the same classes."""

from __future__ import annotations

from productrec.artifacts import compute_digest
from productrec.data.class_keys import match_classes
from productrec.data.table import ImageTable
from productrec.errors import ArtifactError, describe_offenders
from productrec.recognition.probabilities import ClassProbabilities

_AGAIN = "Run `productrec predict` again."


def digest_rows(table: ImageTable, split: str) -> str:
    """Digest of a split's images: ids, states and what the files hold."""
    rows = table.select([split], usable=False)
    columns = (rows[name].astype(object).where(rows[name].notna(), None) for name in ("image_id", "status", "digest"))
    return compute_digest([column.tolist() for column in columns])


def find_class_ids(probabilities: ClassProbabilities, table: ImageTable) -> list[int]:
    """The id that each class of some probabilities has in the table now, in their order.

    Raises:
        ArtifactError: a class is not in the table, or those of an older artefact, which kept no keys, have other names.
    """
    if probabilities.keys:
        return match_classes(probabilities.keys, table, where=str(probabilities.folder))
    known = set(table.classes["id"].tolist())
    if not known.issuperset(probabilities.class_ids) or (
        table.get_class_names(probabilities.class_ids) != probabilities.names
    ):
        raise ArtifactError(
            f"{probabilities.folder}: its classes must be those of the image table; they have other names. {_AGAIN}"
        )
    return probabilities.class_ids


def check_current(probabilities: ClassProbabilities, table: ImageTable) -> None:
    """Refuse probabilities that were made from another state of the table than it is in now.

    Raises:
        ArtifactError: images were added, removed or changed, or classes are gone or have other ids.
    """
    if probabilities.table_fingerprint == table.fingerprint:
        return
    where, split = probabilities.folder, probabilities.split or "test"
    before, now = probabilities.ids, table.select([split], usable=False)["image_id"].tolist()
    added, gone = sorted(set(now) - set(before)), sorted(set(before) - set(now))
    if added or gone:
        kinds = (("added", added), ("removed", gone))
        changes = " and ".join(f"{describe_offenders(ids)} {kind}" for kind, ids in kinds if ids)
        raise ArtifactError(
            f"{where}: must be of the {len(now):,} {split} images that the table holds now; since these predictions "
            f"were made {changes}. {_AGAIN}"
        )
    if probabilities.rows is not None and probabilities.rows != digest_rows(table, split):
        raise ArtifactError(f"{where}: {split} images have changed since these predictions were made. {_AGAIN}")
    if find_class_ids(probabilities, table) != probabilities.class_ids:
        raise ArtifactError(f"{where}: classes have other ids in the image table by now. {_AGAIN}")
