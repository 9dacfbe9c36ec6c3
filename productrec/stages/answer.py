"""Answer: the images that a sample submission lists become the CSV that the competition accepts; no table is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from productrec.assembly.answering import ReadyRun
from productrec.assembly.blended import BlendedRuns
from productrec.assembly.photo_files import list_files
from productrec.assembly.sample_files import match_files
from productrec.competitions.contract import Contract
from productrec.competitions.sample import Sample, adapt_contract, read_sample
from productrec.competitions.writer import Submission, write_submission
from productrec.console import say, show_progress, warn
from productrec.data.images import FileImages
from productrec.data.inspection import inspect_images
from productrec.ensembling.blend import Blend
from productrec.errors import ArtifactError, DataError, SubmissionError, describe_offenders
from productrec.runtime import count_cores


@dataclass(frozen=True)
class AnsweredSample:
    """A written CSV, and what it took: ids without a file, reasons by id of files that are no photo, how runs answer.

    ``extra``: files that the sample does not list; ``has_prior``: whether the gallery told the classes' shares.
    """

    submission: Submission
    contract: Contract
    sample: Path
    missing: list[str]
    reasons: dict[str, str]
    extra: int
    has_prior: bool
    ways: list[str]


def run_answer(
    prepare: Callable[[], Sequence[ReadyRun]],
    source: Path,
    out: Path,
    *,
    contract: Contract,
    sample: Path,
    blend: Blend | None = None,
    fill_missing: bool = False,
    replace: bool = False,
) -> AnsweredSample:
    """Classify the images that a sample submission lists and write the contract's CSV, with its ids in its order.

    An image that cannot be read gets the share of each class in the gallery, as `productrec predict` gives it.

    Args:
        prepare: makes the runs ready, which are averaged; called once all images are found.
        source: folder, looked through with all that are in it.
        out: CSV to write.
        contract: what the competition wants.
        sample: sample submission; see `match_files` for what its ids may be.
        blend: how runs become one; an equal mean where None.
        fill_missing: an id without a file gets the share of each class too, instead of being refused.
        replace: write over a file that is there.

    Raises:
        ArtifactError: a run cannot answer, or ``out`` is there already.
        DataError: ids have no file, or several, or not one file can be read.
        SubmissionError: the runs' classes do not fit the contract or the sample.
    """
    if out.exists() and not replace:
        raise ArtifactError(
            f"{out}: is there already. Name another file with --out, or pass --replace to write over it."
        )
    listed = read_sample(sample)
    if not contract.adapts_to_sample and [contract.id_column, contract.prediction_column] != listed.columns:
        raise SubmissionError(
            f"{sample}: columns must be {contract.id_column},{contract.prediction_column}, as the contract "
            f"{contract.name} has them; got {','.join(listed.columns)[:200]}. Name the contract with --competition."
        )
    files = list_files(source, out)
    found = match_files(listed.ids, files)
    missing = [image_id for image_id in listed.ids if image_id not in found]
    if missing and (not fill_missing or not found):
        raise DataError(
            f"{source}: must hold a file for every id of {sample.name}; got none for {describe_offenders(missing)}. "
            "Name the folder of the test images, or give such ids the share of each class with --fill-missing."
        )
    ids, paths = list(found), list(found.values())
    with show_progress("reading images", len(paths)) as bar:
        states = inspect_images(paths, workers=count_cores(), on_progress=bar.advance)
    reasons = {
        image_id: state.reason or state.status
        for image_id, state in zip(ids, states, strict=True)
        if state.status != "ok"
    }
    if len(reasons) == len(ids):
        first = next(iter(reasons.items()))
        raise DataError(f"{source}: not one of {len(ids)} files is a photo; the first, {first[0]}: {first[1]}")
    runs = BlendedRuns(prepare(), blend=blend)
    contract = _fit_contract(contract, listed, runs)
    prior = runs.compute_prior()
    row_of = {image_id: row for row, image_id in enumerate(listed.ids)}
    probabilities = np.empty((len(row_of), len(runs.keys)), np.float32)
    probabilities[:] = 1 / len(runs.keys) if prior is None else prior
    readable = [image_id for image_id in ids if image_id not in reasons]
    doubted: list[str] = []
    with show_progress("classifying images", len(readable)) as bar:
        images = FileImages([found[image_id] for image_id in readable])
        for rows, answered, is_doubted, broken in runs.answer(images):
            reasons |= {readable[row]: reason for row, reason in broken.items()}
            for row, values, is_away in zip(rows, answered, is_doubted.tolist(), strict=True):
                if row not in broken:
                    probabilities[row_of[readable[row]]] = values
                    doubted += [readable[row]] if is_away else []
            bar.advance(len(rows))
    submission = write_submission(
        out,
        contract=contract,
        ids=listed.ids,
        probabilities=probabilities,
        class_labels=runs.names if contract.label_as == "name" else runs.class_ids,
        sample=sample,
        doubted=None if contract.unknown_label is None or runs.unknown is None else doubted,
    )
    ways = [f"{one.run}: {one.way}" for one in runs.runs]
    extra = len(files) - len(set(found.values()))
    return AnsweredSample(submission, contract, sample, missing, reasons, extra, prior is not None, ways)


def report(done: AnsweredSample) -> None:
    """Say how images were classified, which could not be, and where the CSV lies."""
    for way in done.ways:
        say(way)
    share = (
        "the share of each class in the gallery" if done.has_prior else "every class alike, since no gallery is there"
    )
    if done.reasons:
        told = [f"{image_id}: {reason}" for image_id, reason in done.reasons.items()]
        warn(f"images that cannot be read get {share}: {describe_offenders(told, 3)}")
    if done.missing:
        warn(f"ids without an image get {share}: {describe_offenders(done.missing)}")
    if done.extra:
        warn(f"{done.extra:,} files are left out, since {done.sample.name} does not list them.")
    say(
        f"submission {done.submission.path}: {done.submission.rows:,} rows for {done.contract.title}; agrees with "
        f"{done.sample}"
    )


def _fit_contract(contract: Contract, sample: Sample, runs: BlendedRuns) -> Contract:
    """The contract in the form of the sample; numbers of productrec's own mean nothing to whoever scores the CSV."""
    ids = runs.class_ids if runs.class_ids == runs.keys else []
    return adapt_contract(contract, sample, names=runs.names, ids=ids)
