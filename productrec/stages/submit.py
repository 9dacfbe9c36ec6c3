"""Submit: class probabilities become the CSV a competition accepts, and a row of the ledger."""

from __future__ import annotations

from pathlib import Path

from productrec.artifacts import compute_digest, load_manifest
from productrec.competitions.contract import load_contract
from productrec.competitions.ledger import LedgerEntry, append_to_ledger, load_ledger
from productrec.competitions.sample import adapt_contract, read_sample
from productrec.competitions.writer import Submission, write_submission
from productrec.console import say, warn
from productrec.errors import ArtifactError, RecipeError
from productrec.recipe import Recipe, build_recipe, load_recipe
from productrec.recognition.probabilities import KIND, load_probabilities

NO_SAMPLE = Path("none")  # in place of a sample submission: compare with none


def run_submit(source: Path, out: Path, *, competition: str, sample: Path | None) -> Submission:
    """Write the CSV of some class probabilities and remember it in ``ledger.csv`` beside it (once, if it is unchanged).

    Args:
        source: a folder of class probabilities, or a run or ensemble folder, whose newest predictions are taken.
        out: CSV to write; an older one of that name is replaced only by one that has passed every check.
        competition: contract, by name or file.
        sample: sample submission to agree with, or None.

    Raises:
        ArtifactError: no predictions there.
        SubmissionError: they do not fit the contract or the sample.
    """
    contract = load_contract(competition)
    probabilities = load_probabilities(find_probabilities(source))
    if sample is not None:
        ids = [str(class_id) for class_id in probabilities.class_ids]
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
        validation_metric=f"top_{contract.metric_k}_error" if validation else "",
        validation_value=validation.get("metric_error"),
    )
    append_to_ledger(ledger, entry)
    return submission


def find_probabilities(source: Path) -> Path:
    """The class probabilities of the test images at or under ``source``, the newest where there are several.

    Raises:
        ArtifactError: there are none.
    """
    if (source / "manifest.json").exists() and load_manifest(source).kind == KIND:
        return source
    found = [
        path.parent for pattern in ("test", "predictions/*/test") for path in source.glob(f"{pattern}/manifest.json")
    ]
    if not found:
        raise ArtifactError(f"{source}: holds no predictions of test images. Run `productrec predict` on it first.")
    return max(found, key=lambda folder: (folder / "manifest.json").stat().st_mtime_ns)


def submit_recipe(recipe: Recipe, source: Path, *, out: Path | None = None, sample: Path | None = None) -> Submission:
    """Write the CSV that the recipe's competition wants from predictions at ``source``."""
    contract = load_contract(recipe.competition)
    if sample is None:
        sample = recipe.submit.sample or find_sample(recipe.table, source)
    if sample == NO_SAMPLE:
        sample = None
    target = out or recipe.submit.out or Path("submissions") / f"{recipe.name}.csv"
    submission = run_submit(find_probabilities(source), target, competition=recipe.competition, sample=sample)
    checked = (
        f"agrees with {sample}"
        if sample
        else "checked against the contract; there is no sample submission to compare with"
    )
    say(f"submission {submission.path}: {submission.rows:,} rows for {contract.title}; {checked}")
    return submission


def submit_target(
    source: Path, *, competition: str | None = None, out: Path | None = None, sample: Path | None = None
) -> Submission:
    """Submit a run folder, a folder of class probabilities, or what a recipe has predicted.

    Raises:
        ArtifactError: no predictions there.
        RecipeError: neither a recipe above the folder nor ``competition`` says what is wanted.
    """
    if source.is_file():
        recipe = load_recipe(source)
        folder = recipe.run_folder
    else:
        folder = source
        found = find_recipe(source)
        if found is None:
            if competition is None:
                raise RecipeError(f"{source}: lies in no run folder; name the contract with --competition.")
            found = build_recipe({"name": source.name, "submit": {"sample": sample}, "data": {"table": "none"}})
        recipe = found
    if competition is not None:
        recipe = recipe.model_copy(update={"competition": competition})
    return submit_recipe(recipe, folder, out=out, sample=sample)


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
