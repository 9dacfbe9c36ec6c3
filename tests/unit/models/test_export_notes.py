"""Notes: what an exported file says of itself comes back as it was, and what is no such file is refused."""

from dataclasses import replace

import pytest

from productrec.errors import ArtifactError
from productrec.models.export_notes import ExportNotes

NOTES = ExportNotes(
    [7, 3], ["drinks/cola", "jam"], ['cola "0.5 l"', "jam, \u00e9"], 160, "abc", "mine", "resnet10t", "int8", "0.1"
)


def test_notes_come_back_as_they_were():
    texts = NOTES.to_texts()
    assert all(isinstance(text, str) for text in texts.values())
    assert texts["class_names"] == '["cola \\"0.5 l\\"", "jam, \u00e9"]'
    assert ExportNotes.from_texts(texts, "mine.onnx") == NOTES
    assert ExportNotes.from_texts(texts | {"more": "of a later version"}, "mine.onnx") == NOTES
    other = replace(NOTES, precision="float32")
    assert ExportNotes.from_texts(other.to_texts(), "mine.onnx") == other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": "2"}, "at most 1; got 2. Update productrec"),
        ({"format_version": "one"}, "cannot be read"),
        ({"class_names": "[cola"}, "cannot be read"),
        ({"side_px": "wide"}, "cannot be read"),
    ],
)
def test_damaged_or_newer_notes_are_refused(change, words):
    with pytest.raises(ArtifactError, match=rf"^mine\.onnx: .*{words}"):
        ExportNotes.from_texts(NOTES.to_texts() | change, "mine.onnx")


def test_a_file_without_notes_is_refused():
    with pytest.raises(ArtifactError, match="productrec export"):
        ExportNotes.from_texts({}, "mine.onnx")
    texts = NOTES.to_texts()
    del texts["side_px"]
    with pytest.raises(ArtifactError, match="side_px"):
        ExportNotes.from_texts(texts, "mine.onnx")
