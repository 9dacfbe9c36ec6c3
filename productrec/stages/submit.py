"""Submit: class probabilities become the CSV a competition accepts, and a row of the ledger."""

from __future__ import annotations

from pathlib import Path

from productrec.artifacts import compute_digest, load_manifest
from productrec.competitions.contract import Contract, load_contract
from productrec.competitions.ledger import LedgerEntry, append_to_ledger, load_ledger
from productrec.competitions.sample import adapt_contract, read_sample
from productrec.competitions.writer import Submission, write_submission
from productrec.console import say, warn
from productrec.errors import ArtifactError
from productrec.recipe import Recipe, load_recipe
from productrec.recognition.probabilities import KIND, ClassProbabilities, find_table_folder, load_probabilities

NO_SAMPLE = Path("none")  # in place of a sample submission: compare with none


def write_and_note(
    probabilities: ClassProbabilities, out: Path, *, contract: Contract, sample: Path | None
) -> Submission:
    """Write the CSV of some class probabilities and remember it in ``ledger.csv`` beside it (once, if it is unchanged).

    Args:
        probabilities: of the test images.
        out: CSV to write; an older one of that name is replaced only by one that has passed every check.
        contract: what the competition wants.
        sample: sample submission to agree with, or None.

    Raises:
        SubmissionError: they do not fit the contract or the sample.
    """
    if sample is not None:
        ids = [str(class_id) for class_id in probabilities.class_ids]
        if list(probabilities.keys) != ids:  # numbers of productrec's own, which mean nothing to whoever scores the CSV
            ids = []
        contract = adapt_contract(contract, read_sample(sample), names=probabilities.names, ids=ids)
    labels = (
        probabilities.names if contract.label_as == "name" else [str(class_id) for class_id in probabilities.class_ids]
    )
    if probabilities.fallback:
        warn(
            f"{len(probabilities.fallback)} of {len(probabilities.ids)} images are unreadable and carry the class prior"
        )
    submission = write_submission(
        out,
        contract=contract,
        ids=probabilities.ids,
        probabilities=probabilities.values,
        class_labels=labels,
        sample=sample,
        doubted=_list_doubted(probabilities, contract),
    )
    ledger = out.parent / "ledger.csv"
    if any(entry.sha256 == submission.sha256 and entry.file == out.name for entry in load_ledger(ledger)):
        return submission
    validation = probabilities.made.get("validation") or {}
    entry = LedgerEntry(
        file=out.name,
        sha256=submission.sha256,
        competition=contract.name,
        source=str(probabilities.folder),
        recipe_digest=compute_digest(probabilities.made),
        validation_metric=validation.get("metric", ""),
        validation_value=validation.get("metric_value"),
        weights=" ".join(f"{name}={share:.4g}" for name, share in (probabilities.made.get("ensemble") or {}).items()),
    )
    append_to_ledger(ledger, entry)
    return submission


def _list_doubted(probabilities: ClassProbabilities, contract: Contract) -> list[str] | None:
    """Images that get the contract's label for unknown products first; None where it has none, or nothing tells."""
    if contract.unknown_label is None:
        return None
    if probabilities.doubted is None:
        warn(
            f"no image is called {contract.unknown_label}, since too few validation images could tell from when on an "
            "answer is to be believed"
        )
    return probabilities.doubted


def find_probabilities(source: Path) -> Path:
    """The class probabilities of the test images at or under ``source``, the newest where there are several.

    Raises:
        ArtifactError: there are none.
    """
    if (source / "manifest.json").exists() and load_manifest(source).kind == KIND:
        return source
    newest = _find_newest(source, "test")
    if newest is not None:
        return newest
    if _find_newest(source, "val") is not None:
        raise ArtifactError(
            f"{source}: holds predictions of validation images alone, since its image table has no test images. Put "
            "them into the source (a folder test beside train, or a list), ingest and predict again; or classify a "
            f"folder of new photos without a table: productrec predict {source} --images FOLDER --out new.csv."
        )
    raise ArtifactError(f"{source}: holds no predictions of test images. Run `productrec predict {source}` first.")


def find_predictions(source: Path) -> Path:
    """The folder of the newest predictions at or under ``source``, which holds ``test``, ``val`` or both.

    Raises:
        ArtifactError: there are none.
    """
    if _find_newest(source, "test") is None and (newest := _find_newest(source, "val")) is not None:
        return newest.parent
    return find_probabilities(source).parent


def _find_newest(source: Path, split: str) -> Path | None:
    folders = [
        path.parent for pattern in (split, f"predictions/*/{split}") for path in source.glob(f"{pattern}/manifest.json")
    ]
    return max(folders, key=lambda folder: (folder / "manifest.json").stat().st_mtime_ns, default=None)


def submit_recipe(recipe: Recipe, source: Path, *, out: Path | None = None, sample: Path | None = None) -> Submission:
    """Write the CSV that the recipe's competition wants from predictions at ``source``.

    Without ``out`` it is the recipe's, or ``submissions/NAME.csv``; predictions through other views than the recipe's
    get ``submissions/NAME-VIEWS.csv``, so that neither is written over the other.

    Raises:
        ArtifactError: no predictions there, or test images or classes of their table have changed since.
        SubmissionError: they do not fit the contract or the sample.
    """
    contract = load_contract(recipe.competition)
    probabilities = load_probabilities(find_probabilities(source))
    table = find_table_folder(probabilities, recipe.table)
    if table is not None:
        _check_table(probabilities, table)
    if sample is None:
        sample = recipe.submit.sample or find_sample(table or recipe.table, source)
    if sample == NO_SAMPLE:
        sample = None
    views = probabilities.made.get("views") or recipe.predict.tta
    name = recipe.name if views == recipe.predict.tta else f"{recipe.name}-{views}"
    target = out or (recipe.submit.out if name == recipe.name else None) or Path("submissions") / f"{name}.csv"
    submission = write_and_note(probabilities, target, contract=contract, sample=sample)
    checked = (
        f"agrees with {sample}"
        if sample
        else "checked against the contract; there is no sample submission to compare with"
    )
    say(
        f"submission {submission.path}: {submission.rows:,} rows for {contract.title}, from {probabilities.folder}; "
        f"{checked}"
    )
    return submission


def _check_table(probabilities: ClassProbabilities, folder: Path) -> None:
    """Refuse predictions of another state of the table than it is in now."""
    if probabilities.table_fingerprint == load_manifest(folder).fingerprint:
        return
    # These take pandas, which is needed only where the table has changed.
    from productrec.assembly.table_state import check_current
    from productrec.data.table import load_table

    check_current(probabilities, load_table(folder))


def find_recipe(folder: Path) -> Recipe | None:
    """The recipe of the run that ``folder`` is or lies in, or None."""
    for above in (folder, *folder.absolute().parents[:4]):
        if (above / "recipe.yaml").is_file():
            return load_recipe(above / "recipe.yaml")
    return None


def find_sample(table: Path, source: Path) -> Path | None:
    """The sample submission kept with an image table; the table itself need not be read, which would take pandas.

    A relative ``table`` is looked for where the command runs, and in the folders above ``source``, in one of which the
    run was trained.
    """
    for folder in (Path(), *source.absolute().parents):
        kept = folder / table / "sample_submission.csv"
        if kept.is_file():
            return kept
    return None
