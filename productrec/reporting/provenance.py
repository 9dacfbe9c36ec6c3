"""Section of provenance: the resolved recipe, the environment and the digests of the artefacts; and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from productrec.artifacts import MANIFEST_NAME, load_manifest
from productrec.errors import ArtifactError
from productrec.reporting.page import Section


def list_artifacts(folder: Path) -> list[tuple[str, str, str]]:
    """Place within a folder, kind and fingerprint of every artefact below it, in the order of the places."""
    found = []
    for path in sorted(folder.rglob(MANIFEST_NAME)):
        own = path.parent
        if any(part.startswith(".") for part in own.relative_to(folder).parts):  # half-written, or of another process
            continue
        try:
            manifest = load_manifest(own)
        except ArtifactError:
            continue
        found.append((own.relative_to(folder).as_posix(), manifest.kind, manifest.fingerprint))
    return found


def build_provenance(
    recipes: Mapping[str, str],
    environments: Mapping[str, Mapping[str, str]],
    artifacts: Sequence[tuple[str, str, str]],
) -> Section:
    """How the report's run came about.

    Args:
        recipes: text of each recipe, by name.
        environments: versions by package, by where they were.
        artifacts: as `list_artifacts` gives them.
    """
    packages = sorted({package for versions in environments.values() for package in versions})
    rows = [(package, *(versions.get(package, "") for versions in environments.values())) for package in packages]
    data = {
        "recipes": dict(recipes),
        "environment": ("Versions", ("package", *environments), rows),
        "artifacts": (
            "Artefacts and their fingerprints",
            ("folder", "kind", "SHA-256"),
            [(place, kind, digest[:16]) for place, kind, digest in artifacts],
        ),
    }
    return Section("provenance", "Recipe, environment and artefacts", "report_provenance.html.jinja", data)


def build_missing(missing: Sequence[str]) -> Section:
    """What the page does not show, and how to have it shown."""
    return Section("missing", "Not shown", "report_missing.html.jinja", {"missing": list(missing)})
