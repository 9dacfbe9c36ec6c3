"""The documentation's own Sphinx extension: parts of pages that the code writes, and links of what pages name."""

from typing import Any

from productrec_docs.page_links import link_named_pages
from productrec_docs.written_parts import write_parts


def setup(app: Any) -> dict[str, bool]:
    """Take part in the build: before a page is parsed, and after it."""
    app.connect("source-read", write_parts)
    app.connect("doctree-read", link_named_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
