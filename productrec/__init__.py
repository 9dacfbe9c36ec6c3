"""productrec: tell near-identical products apart, from a competition's files to a scored submission."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from productrec.pipeline.loaded import LoadedRun

__version__ = "0.1.0"


def load(run: Any, *, views: str | None = None, index: Any = None) -> LoadedRun:
    """Load a trained run into this process, to recognise photos with.

    Args:
        run: its folder, or a file of `productrec export --to onnx`, for which torch need not be there.
        views: preset of views to look through; None for that of the run's recipe.
        index: of a file, folder of the index to find near products in; None for that of the run it lies in.

    Returns:
        What ``recognise`` is asked of, see `productrec.pipeline.loaded.LoadedRun`.

    Raises:
        ArtifactError: the folder holds no trained run, or something in it is damaged.
    """
    from productrec.runtime import prepare_process

    prepare_process()  # before torch is imported
    from productrec.pipeline.loaded import load_run

    return load_run(run, views=views, index=index)
