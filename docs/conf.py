"""How these pages are built: ``sphinx-build -W docs docs/_build/html``, with nothing from the network."""

import logging
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE / "ext"), str(_HERE.parent)]  # this checkout is documented, whatever is installed

from productrec import __version__  # noqa: E402

logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells what it tries

project = "productrec"
author = "the productrec contributors"
version = release = __version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "productrec_docs"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "ext"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

highlight_language = "none"  # a block without a language is shown as it is
default_role = "code"  # docstrings write code between single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = "productrec"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_theme_options = {"top_of_page_buttons": []}
