"""Fetches the images of a table of URLs into a folder: many at once, politely, and again after any interruption."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from productrec.data.download.ledger import Ledger, open_ledger
from productrec.data.download.terms import DownloadLimits, Outcome, Request, get_file_name
from productrec.errors import DataError, Interrupted, describe_offenders
from productrec.runtime import StopRequest, catch_stop, count_cores

__all__ = ["DownloadLimits", "Outcome", "Request", "download_images", "get_file_name"]

_CHUNK_FILES = 256
_LOOK_FOR_STOP_S = 0.1


def download_images(
    requests: Sequence[Request],
    folder: Path,
    *,
    limits: DownloadLimits = DownloadLimits(),  # noqa: B008 - frozen
    retry_all: bool = False,
    allow_private: bool = False,
    on_progress: Callable[[int], None] = lambda count: None,
) -> list[Outcome]:
    """Fetch images to ``folder / get_file_name(image_id)`` and keep a ledger of every outcome beside them.

    A rerun keeps the successes whose file is as the ledger says, and the failures that would only fail again; the rest
    is fetched. What is on disk after any number of kills and reruns is, byte for byte, what one undisturbed run leaves.
    Outcomes of ids that are not among the requests stay in the ledger. It runs an event loop of its own.

    Args:
        requests: ids, each once, and their URLs.
        folder: where files and ledger (``downloads.jsonl``) lie; made if need be.
        limits: connections, attempts, sizes and times.
        retry_all: try every earlier failure again, not only those that may pass.
        allow_private: connect to addresses that are not public, too; for tests and for servers of one's own.
        on_progress: called with the number of requests settled since the last call.

    Returns:
        One outcome for each request, in their order.

    Raises:
        DataError: an id stands twice among the requests.
        ArtifactError: another download is at work in ``folder``.
        StorageError: the disk refused; what was finished is kept.
        Interrupted: Ctrl-C or SIGTERM; what was finished is kept.
    """
    wanted = [Request(image_id, url if isinstance(url, str) and url.strip() else None) for image_id, url in requests]
    doubled = [image_id for image_id, count in Counter(image_id for image_id, _ in wanted).items() if count > 1]
    if doubled:
        raise DataError(f"download: image ids must be unique; got some twice: {describe_offenders(doubled)}. Drop one.")
    with catch_stop() as stop, open_ledger(folder) as ledger:
        kept = _find_kept(wanted, ledger, retry_all, stop, on_progress)
        todo = [request for request in wanted if request.image_id not in kept]
        if todo:
            asyncio.run(_fetch_all(todo, ledger, limits, allow_private, stop, on_progress))
        ledger.put_in_order(image_id for image_id, _ in wanted)
        return [ledger.outcomes[image_id] for image_id, _ in wanted]


def _find_kept(
    wanted: Sequence[Request], ledger: Ledger, retry_all: bool, stop: StopRequest, on_progress: Callable[[int], None]
) -> set[str]:
    """Ids whose earlier outcome still holds."""

    def holds(request: Request) -> bool:
        outcome = ledger.outcomes.get(request.image_id)
        if outcome is None or outcome.url != request.url:
            return False
        if not outcome.ok:
            return not (retry_all or outcome.may_pass)
        return ledger.is_intact(outcome)

    kept: set[str] = set()
    with ThreadPoolExecutor(count_cores()) as pool:
        for start in range(0, len(wanted), _CHUNK_FILES):
            chunk = wanted[start : start + _CHUNK_FILES]
            held = [request.image_id for request, held in zip(chunk, pool.map(holds, chunk), strict=True) if held]
            kept.update(held)
            on_progress(len(held))
            _raise_if_stopped(stop)
    return kept


async def _fetch_all(
    todo: Sequence[Request],
    ledger: Ledger,
    limits: DownloadLimits,
    allow_private: bool,
    stop: StopRequest,
    on_progress: Callable[[int], None],
) -> None:
    from productrec.data.download.transfer import fetch, open_session  # aiohttp takes a fifth of a second to import

    async def run(request: Request) -> None:
        outcome = await fetch(session, request, ledger.folder, limits)
        await asyncio.to_thread(ledger.settle, outcome)

    turns = _Turns(todo, limits.connections_per_host)
    running: dict[asyncio.Task[None], str] = {}
    async with open_session(limits, allow_private=allow_private) as session:
        try:
            while True:
                while len(running) < limits.connections and (turn := turns.take()) is not None:
                    running[asyncio.create_task(run(turn[1]))] = turn[0]
                if not running:
                    return
                done, _ = await asyncio.wait(running, timeout=_LOOK_FOR_STOP_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    turns.give_back(running.pop(task))
                    task.result()
                on_progress(len(done))
                _raise_if_stopped(stop)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


def _raise_if_stopped(stop: StopRequest) -> None:
    if stop.wanted:
        raise Interrupted("download: stopped; what was finished is kept. Run the same command again to go on.")


class _Turns:
    """Deals requests out host by host, so that none has more than its share of connections and none waits idle."""

    def __init__(self, requests: Sequence[Request], most_per_host: int) -> None:
        self._most = most_per_host
        self._waiting: defaultdict[str, deque[Request]] = defaultdict(deque)
        for request in requests:
            self._waiting[_get_host(request)].append(request)
        self._busy: Counter[str] = Counter()
        # Exactly the hosts that have both a request waiting and a connection to spare.
        self._ready = deque(self._waiting)

    def take(self) -> tuple[str, Request] | None:
        """The next host and request, or None while no host is ready."""
        if not self._ready:
            return None
        host = self._ready.popleft()
        request = self._waiting[host].popleft()
        self._busy[host] += 1
        if self._waiting[host] and self._busy[host] < self._most:
            self._ready.append(host)
        return host, request

    def give_back(self, host: str) -> None:
        """A request of ``host`` is settled."""
        if self._waiting[host] and self._busy[host] == self._most:
            self._ready.append(host)
        self._busy[host] -= 1


def _get_host(request: Request) -> str:
    try:
        return urlsplit(request.url or "").hostname or ""
    except ValueError:
        return ""
