"""The pages are built without a warning, and open without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

_LOADED = re.compile(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"(?:https?:)?//|<link[^>]*\shref=\"(?:https?:)?//")


def build(sources: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-d", str(target / "trees")]
    return subprocess.run(
        [*command, str(sources), str(target / "html")],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.exhaustive
def test_the_pages_are_built_and_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = build(ROOT / "docs", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    html = tmp_path / "html"
    pages = list(html.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert not _LOADED.search(page.read_text(encoding="utf-8")), page
    for sheet in html.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet
    assert 'id="setting-train-epochs"' in (html / "reference" / "settings.html").read_text(encoding="utf-8")
    training = (html / "training.html").read_text(encoding="utf-8")
    assert 'href="reference/settings.html#setting-train-chunk-size"' in training
    assert 'href="clusters.html"' in training
    assert not (ROOT / "docs" / "weight_curves.svg").exists()


@pytest.mark.exhaustive
def test_a_page_with_a_dead_link_is_not_built(tmp_path: Path) -> None:
    sources = tmp_path / "docs"
    sources.mkdir()
    # The real settings, and one page.
    (sources / "conf.py").write_text(
        (ROOT / "docs" / "conf.py").read_text().replace("__file__", repr(str(ROOT / "docs/conf.py")))
    )
    (sources / "static").mkdir()
    (sources / "static" / "tables.css").write_text("")
    (sources / "index.md").write_text("# Front\n\nSee [there](nowhere.md).\n")
    done = build(sources, tmp_path)
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr


def test_what_loads_from_elsewhere_is_seen() -> None:
    assert _LOADED.search('<script async src="https://cdn.example/x.js"></script>')
    assert _LOADED.search('<link rel="stylesheet" href="//fonts.example/x.css" />')
    assert not _LOADED.search('<a href="https://milvus.io">Milvus</a><script src="_static/x.js"></script>')
