"""Contracts in plain words, and as YAML that says what each key means."""

from __future__ import annotations

import json

from productrec.competitions.contract import Contract

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", " ": "a space"}


def explain_contract(contract: Contract) -> list[str]:
    """What a contract asks for, a sentence each."""
    count = contract.labels_per_image
    between = _SEPARATORS.get(contract.label_separator, repr(contract.label_separator))
    labels = "one label"
    if count > 1:
        labels = f"{count} different labels, the likeliest first, with {between} between them"
    elif contract.confidence:
        labels = f"one label and how sure it is, from 0 to 1, with {between} between them"
    kind = "the class's name" if contract.label_as == "name" else "the class's own id"
    lines = [f"{contract.name}: {contract.title}"]
    if contract.answers == "retrieval":
        lines.append(
            "A research protocol: there is no CSV, and `productrec evaluate RUN --split test` (the last step of "
            "`productrec run`) makes its table. Test classes are others than those that are trained on."
        )
        return lines + _explain_rules(contract)
    row = f"A row holds {labels}; a label is {kind}."
    if contract.answers == "matches":
        row = (
            f"A row holds the ids of all test images of the same product, the image's own among them, at most "
            f"{contract.most_matches}, with {between} between them."
        )
    lines += [
        f"The CSV has two columns, {contract.id_column} and {contract.prediction_column}, with "
        f"{_SEPARATORS[contract.column_separator]} between them, and a row for every test image.",
        row,
    ]
    if contract.allows_empty:
        lines.append("A row may hold no label, for an image of no known class; productrec writes one in each.")
    if contract.class_count is not None:
        lines.append(f"There are {contract.class_count:,} classes, with the ids 0 to {contract.class_count - 1}.")
    if contract.adapts_to_sample:
        lines.append(
            "Where the source has a sample submission, the CSV takes headers, separators, number of labels and order "
            "from it."
        )
    if contract.sample_submission is not None:
        lines.append(f"The sample submission is {contract.sample_submission} in the source folder.")
    if contract.unknown_label is not None:
        lines.append(f"A product of no known class is called {contract.unknown_label}.")
    if contract.unknown_share is not None:
        lines.append(f"About {100 * contract.unknown_share:g} % of the test images are of no known class.")
    return lines + _explain_rules(contract)


def _explain_rules(contract: Contract) -> list[str]:
    """How it is scored, what may be trained on, and where files come from and go."""
    splits = " and ".join(contract.trainable_splits)
    lines = [f"Scored by {contract.tell_metric()}."]
    pseudo = "allowed" if contract.pseudo_labels else "forbidden"
    lines.append(f"Training on {splits} is allowed; training on predicted labels of test images is {pseudo}.")
    if contract.source_format != "auto":
        lines.append(f"The source files are laid out as {contract.source_format}.")
    if contract.upload_slug is not None:
        lines.append(f"Submissions are uploaded to {contract.upload_slug}.")
    return lines


def format_contract(contract: Contract) -> str:
    """A contract as YAML for `load_contract`, with the meaning of every key above it."""
    values = contract.model_dump(mode="json")
    lines = []
    for key, field in Contract.model_fields.items():
        lines += [f"# {field.description}", f"{key}: {json.dumps(values[key], ensure_ascii=False)}"]
    return "\n".join(lines) + "\n"
