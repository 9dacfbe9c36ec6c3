"""timm's hub and its cache on this machine: which weights are here, and how long a hub out of reach is waited for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from huggingface_hub import CacheNotFound, constants, scan_cache_dir, try_to_load_from_cache
from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # it is there in every version

from productrec.errors import TrainingError

_HUB_SECONDS = 5.0
_OWNER = "timm/"
_MEND = (
    "`productrec weights` lists what is at hand, and says how to carry weights here; or connect, or name a mirror in "
    "HF_ENDPOINT, or give model.pretrained the path of a local file, or false for random weights."
)
_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class CachedWeights:
    """Weights of timm's that the cache holds: the model's name with its tag, and bytes on disk."""

    backbone: str
    size_bytes: int


def is_cached(hub_id: str) -> bool:
    """Whether the cache holds the weights of ``hub_id``, such as ``timm/resnet50.a1_in1k``."""
    return any(
        isinstance(try_to_load_from_cache(hub_id, file, cache_dir=constants.HF_HUB_CACHE), str) for file in _FILES
    )


def list_cached() -> list[CachedWeights]:
    """Weights of timm's that the cache holds."""
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    return [
        CachedWeights(repository.repo_id.removeprefix(_OWNER), repository.size_on_disk)
        for repository in sorted(repositories, key=lambda repository: repository.repo_id)
        if repository.repo_id.startswith(_OWNER) and is_cached(repository.repo_id)
    ]


@contextlib.contextmanager
def stay_offline() -> Iterator[None]:
    """Let the block read the cache alone, and ask nobody whether there is something newer."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def reach_hub(name: str, *, where: str = "model.pretrained", mend: str = _MEND) -> Iterator[None]:
    """Let the block fetch from the hub, where that answers within seconds.

    Without this a hub that is out of reach is tried again and again for a minute.

    Args:
        name: of the network whose weights are wanted.
        where: what an error begins with.
        mend: what an error advises.

    Raises:
        TrainingError: it cannot be reached.
    """
    if constants.HF_HUB_OFFLINE or not _is_reachable():
        why = "HF_HUB_OFFLINE forbids to ask" if constants.HF_HUB_OFFLINE else "nothing answers at"
        raise TrainingError(
            f"{where}: the weights of {name} are not on this machine, and {why} {constants.ENDPOINT}. {mend}"
        )
    yield


def _is_reachable() -> bool:
    """Whether the hub answers, whatever it says; a proxy of the environment is asked as a download would."""
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)
    except Exception:  # httpx's or requests', by the hub's version
        return False
    return True
