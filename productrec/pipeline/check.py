"""A CSV, also one made elsewhere, checked against a competition, as the command line names them.

Apart from `submit`, because it writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from productrec.artifacts import MANIFEST_NAME, load_manifest
from productrec.competitions.checker import Report, check_csv
from productrec.competitions.contract import load_contract
from productrec.competitions.sample import adapt_contract, read_sample
from productrec.competitions.writer import load_sample_ids
from productrec.errors import ArtifactError, RecipeError
from productrec.recipe import Recipe, load_recipe
from productrec.stages.submit import NO_SAMPLE, find_recipe

_TABLE = "image table"  # the kind that its manifest says; the module of tables takes pandas


@dataclass(frozen=True)
class Checked:
    """A report, and in words what the CSV was compared with and what could not be."""

    report: Report
    title: str
    compared: str


def check_file(
    path: Path, source: Path | None = None, *, competition: str | None = None, sample: Path | None = None
) -> Checked:
    """Check a CSV against a contract, a sample submission and the classes of an image table.

    Args:
        path: the CSV.
        source: a recipe, a run or an image table, which names what is not given: contract, sample, table.
        competition: the contract, before the recipe's.
        sample: sample submission, before the table's; ``none`` for none.

    Raises:
        RecipeError: no contract is named.
        ArtifactError: ``source`` is none of these, or its table is not on this machine.
        SubmissionError: the sample submission cannot be read, or is of another contract.
    """
    recipe, folder = _find_source(source)
    name = competition or (recipe.competition if recipe is not None else None)
    if name is None:
        raise RecipeError(f"{path}: the contract to check it against must be named. Name it with --competition.")
    contract = load_contract(name)
    if contract.answers == "retrieval":
        raise RecipeError(
            f"{path}: {contract.title} is a research protocol and takes no CSV; its figures are those of `productrec "
            "evaluate`. Name another contract."
        )
    table = None
    if folder is not None:
        from productrec.data.table import load_table  # takes pandas

        table = load_table(folder)
    if sample is None:
        sample = (recipe.submit.sample if recipe is not None else None) or (table.sample if table is not None else None)
    if sample == NO_SAMPLE:
        sample = None
    class_ids = [] if table is None else table.classes["id"].tolist()
    names = [] if table is None else table.get_class_names(class_ids)
    numbers = [str(class_id) for class_id in class_ids]
    if sample is not None:
        is_numbered = table is not None and table.numbered  # by productrec, which means nothing to who made the sample
        contract = adapt_contract(contract, read_sample(sample), names=names, ids=[] if is_numbered else numbers)
    labels = None if table is None else names if contract.label_as == "name" else numbers
    tests = None if table is None else table.select(["test"], usable=False)["image_id"].tolist()
    ids = tests if sample is None else load_sample_ids(sample, contract)
    report = check_csv(path, contract=contract, ids=ids, labels=labels, in_order=sample is not None)
    lists = "lists with the same ids" if ids is not None else "NOT CHECKED whether lists hold ids of test images"
    cells = lists if contract.answers == "matches" else _tell_labels(contract.class_count, folder, labels)
    compared = "; ".join((_tell_ids(sample, folder, tests), cells))
    return Checked(report, contract.title, compared)


def _find_source(source: Path | None) -> tuple[Recipe | None, Path | None]:
    """The recipe and the folder of the image table that a source names, each None where it names none."""
    if source is None:
        return None, None
    if source.is_file():
        recipe = load_recipe(source)
        return recipe, _check_table(recipe.table)
    if (source / MANIFEST_NAME).is_file() and load_manifest(source).kind == _TABLE:
        return None, source
    found = find_recipe(source)
    if found is None:
        raise ArtifactError(
            f"{source}: must be a recipe, a run or an image table; it is none. Name one, or leave it out."
        )
    return found, _check_table(found.table)


def _check_table(folder: Path) -> Path:
    if not (folder / MANIFEST_NAME).is_file():
        raise ArtifactError(
            f"{folder}: must be the image table of the recipe, for its classes; there is none. Ingest first, or name a "
            "table or nothing before --check."
        )
    return folder


def _tell_ids(sample: Path | None, folder: Path | None, tests: list[str] | None) -> str:
    if sample is not None:
        return f"ids and their order compared with {sample}"
    if tests is not None:
        return f"ids compared with the {len(tests):,} test images of {folder}, their order with nothing"
    return "NOT CHECKED whether its ids are the test images: name the sample submission with --sample"


def _tell_labels(class_count: int | None, folder: Path | None, labels: list[str] | None) -> str:
    if labels is not None:
        return f"labels with the {len(labels):,} classes of {folder}"
    if class_count is not None:
        return f"labels with the numbers 0 to {class_count - 1}"
    return "NOT CHECKED whether its labels are classes: name a recipe, a run or an image table before --check"
