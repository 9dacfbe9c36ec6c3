"""The server: health and answers as JSON over HTTP, with photos decoded in threads and recognised in batches."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
from aiohttp import web

from productrec.assembly.asking import Answer
from productrec.console import warn
from productrec.data.decode import OversizedError
from productrec.errors import DataError, RecipeError, describe_error
from productrec.pipeline.loaded import LoadedRun, PreparedPhoto
from productrec.runtime import StopRequest, count_cores
from productrec.serving.batching import Batcher
from productrec.serving.bodies import Bodies
from productrec.serving.connections import Connections, fit_connections
from productrec.serving.forms import File, Wish, read_files, read_wish
from productrec.serving.limits import Budget, Limits, RefusedError

_MOST_DECODERS = 4  # threads; a large photo takes some hundred MB while it is decoded
_SOON_PIXELS = 12_500_000  # a larger photo is decoded by a thread of its own kind, so that it holds up no smaller one
_LINGER_S = 2.0  # so long a body that is not wanted is read on, for its sender to see the answer
_TICK_S = 0.1
_TELL_AGAIN_S = 60.0
_BODY_LEFT = (408, 413, 415, 503)  # answers that may be given before all of the body has come
_TYPES = "image/*, application/octet-stream or multipart/form-data"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def check_host(host: str, *, allow_remote: bool) -> None:
    """Refuse an address that others can reach, unless that is wanted.

    Raises:
        RecipeError: it is none of this machine alone.
    """
    try:
        is_own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_own = host == "localhost"
    if not is_own and not allow_remote:
        raise RecipeError(
            f"--host: must be this machine's own address, such as 127.0.0.1; got {host}. The server asks nobody for a "
            "password: pass --allow-remote to let everyone who reaches it ask."
        )


def serve_run(
    run: LoadedRun, *, host: str, port: int, limits: Limits, stop: StopRequest, tell: Callable[[int], None]
) -> int:
    """Answer until that is to stop.

    Args:
        run: that is asked; by nobody else meanwhile.
        host: address to listen at.
        port: of it; 0 for a free one.
        limits: of requests and connections.
        stop: looked at ten times a second; what is in flight then is finished, within limits.
        tell: called with the port once requests are answered.

    Returns:
        How many photos were answered.

    Raises:
        RecipeError: the address cannot be listened at.
    """
    run.recognise([np.zeros((8, 8, 3), np.uint8)])  # the first time takes longer, and what is wrong is told here
    return asyncio.run(_PhotoServer(run, limits).serve(host, port, stop, tell))


class _PhotoServer:
    def __init__(self, run: LoadedRun, limits: Limits) -> None:
        self._run, self._limits = run, limits
        self._bodies, self._photos = Bodies(limits), Budget(limits.most_waiting)
        self._answered = 0
        self._is_stopping = False
        self._tell_from = 0.0
        self._connections: Connections

    async def serve(self, host: str, port: int, stop: StopRequest, tell: Callable[[int], None]) -> int:
        @web.middleware
        async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard])
        app.add_routes([web.get("/health", self._tell_health), web.post("/recognise", self._recognise)])
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=_build_quiet_logger(),
            keepalive_timeout=self._limits.timeout_s,
            lingering_time=_LINGER_S,
            auto_decompress=False,  # bodies that are compressed are refused
            shutdown_timeout=1.0,
        )
        await runner.setup()
        assert runner.server is not None
        self._connections = Connections(
            runner.server,
            most=fit_connections(self._limits.connections),
            idle_s=self._limits.timeout_s,
            drop_slowest=self._bodies.drop_slowest,
        )
        self._decoders = ThreadPoolExecutor(min(_MOST_DECODERS, count_cores()), thread_name_prefix="decode")
        self._large_decoders = ThreadPoolExecutor(max(1, count_cores() // 2), thread_name_prefix="decode large")
        self._batcher: Batcher[PreparedPhoto, Answer] = Batcher(
            self._run.recognise_prepared, batch_size=self._limits.batch_size
        )
        asyncio.get_running_loop().set_exception_handler(self._tell_shortly)
        watching = asyncio.create_task(self._connections.watch())
        try:
            listener = await _listen(self._connections, host, port)
            tell(listener.sockets[0].getsockname()[1])
            while not stop.wanted:
                await asyncio.sleep(_TICK_S)
            await self._finish(listener)
        finally:
            watching.cancel()
            await runner.cleanup()
            for decoders in (self._decoders, self._large_decoders):
                decoders.shutdown(wait=False, cancel_futures=True)
            self._batcher.close(1.0)
        return self._answered

    def _tell_shortly(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Too many open files are asyncio's to try again; a traceback for each new connection would fill a disk."""
        error = context.get("exception")
        if not isinstance(error, OSError):
            loop.default_exception_handler(context)
        elif loop.time() >= self._tell_from:
            self._tell_from = loop.time() + _TELL_AGAIN_S
            warn(f"connections: {describe_error(error)}")

    async def _finish(self, listener: asyncio.Server) -> None:
        """Let nobody in any more, and wait for what is in flight."""
        self._is_stopping = True
        listener.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.finish_s):
                while self._connections.busy_count:
                    self._connections.close_idle()
                    await asyncio.sleep(_TICK_S / 10)

    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Every answer is JSON, and none tells more of an error than whoever asks can use."""
        with self._connections.serve(request.protocol):
            try:
                return await handler(request)
            except RefusedError as error:
                return _refuse(error.status, error.reason)
            except web.RequestPayloadError:
                return _refuse(400, "body: is not encoded as its header says.")
            except web.HTTPException as error:
                answer = _refuse(error.status, f"{error.reason}. There are GET /health and POST /recognise.")
                answer.headers.update({key: error.headers[key] for key in ("Allow",) if key in error.headers})
                return answer
            except ConnectionError:
                raise
            except Exception as error:
                if request.protocol.transport is None:  # nobody is there to be answered
                    raise ConnectionResetError from None
                if os.environ.get("PRODUCTREC_TRACEBACK"):
                    logging.getLogger(__name__).exception("request")
                warn(f"a request was not answered: {type(error).__name__}: {describe_error(error)}")
                return _refuse(500, "the run cannot answer now; whoever started the server sees why.")

    async def _tell_health(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "status": "ok",
                "run": str(self._run.folder),
                "classes": len(self._run.class_names),
                "weights": self._run.weights_digest,
                "way": self._run.way,
            }
        )

    async def _recognise(self, request: web.Request) -> web.Response:
        wish = read_wish(request.query)
        is_form = request.content_type == "multipart/form-data"
        if not (is_form or request.content_type.startswith("image/")) and (
            request.content_type != "application/octet-stream"
        ):
            raise RefusedError(415, f"Content-Type: must be {_TYPES}; got {request.content_type[:40]!r}.")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise RefusedError(415, "Content-Encoding: must be none; photos are compressed already.")
        chunks, length = request.content.iter_any(), request.content_length
        async with self._bodies.read(chunks, length=length, protocol=request.protocol) as body:
            files = read_files(request.headers.get("Content-Type", ""), body, self._limits.most_files)
            with self._photos.take(len(files)):
                told = await self._answer_all(files, wish)
        answers = []
        for answer in told:
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
        self._answered += len(answers)
        is_nothing = not is_form and bool(answers[0].reason)
        described = [answer.describe(doubts=wish.unknown) for answer in answers]
        return self._close_if_stopping(web.json_response({"answers": described}, status=422 if is_nothing else 200))

    def _close_if_stopping(self, response: web.Response) -> web.Response:
        if self._is_stopping:
            response.force_close()
        return response

    async def _answer_all(self, files: Sequence[File], wish: Wish) -> Sequence[Answer | BaseException]:
        try:
            async with asyncio.timeout(self._limits.answer_s):
                return await asyncio.gather(*(self._answer(file, wish) for file in files), return_exceptions=True)
        except TimeoutError:  # what has not begun is not begun any more
            seconds = f"{self._limits.answer_s:g} seconds"
            raise RefusedError(503, f"the answer was not there within {seconds}; ask again in a moment.") from None

    async def _answer(self, file: File, wish: Wish) -> Answer:
        most = self._limits.most_pixels
        try:
            try:
                photo = await self._prepare(self._decoders, file, wish, min(most, _SOON_PIXELS))
            except OversizedError:
                photo = await self._prepare(self._large_decoders, file, wish, most)
        except DataError as error:
            return Answer(file.name, reason=str(error))
        return await asyncio.wrap_future(self._batcher.submit(photo))

    async def _prepare(self, decoders: Executor, file: File, wish: Wish, most_pixels: int) -> PreparedPhoto:
        def prepare() -> PreparedPhoto:
            return self._run.prepare(
                file.data, name=file.name, box=wish.box, nearest=wish.nearest, most_pixels=most_pixels
            )

        return await asyncio.get_running_loop().run_in_executor(decoders, prepare)


async def _listen(connections: Connections, host: str, port: int) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(connections, host, port, backlog=128)
    except OSError as error:
        raise RecipeError(
            f"serve: {host}, port {port}, cannot be listened at ({describe_error(error)}). Name another with --port."
        ) from None


def _refuse(status: int, reason: str) -> web.Response:
    response = web.json_response({"error": reason}, status=status)
    if status in _BODY_LEFT:
        response.force_close()
    return response


def _build_quiet_logger() -> Any:
    """What the library logs is whatever strangers send it; the server tells its own errors itself."""
    logger = logging.getLogger("productrec.serving.http")
    logger.setLevel(logging.CRITICAL + 1)
    return logger
