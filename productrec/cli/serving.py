"""The command ``serve``: a run that answers for photos over HTTP."""

from pathlib import Path
from typing import Annotated

import typer

from productrec.cli.next_steps import tell_next
from productrec.cli.options import IndexFolder, Overrides, Views


def serve(
    run: Annotated[Path, typer.Argument(metavar="RUN|FILE.onnx", help="Run folder, or exported file.")],
    overrides: Overrides = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines ask; nobody is asked for a password.")
    ] = False,
    views: Views = None,
    index: IndexFolder = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Size of a request's body at most.")] = 16 << 20,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for a request to come, and for a connection to be idle.")
    ] = 30.0,
    connections: Annotated[int, typer.Option(min=1, help="Connections open at the same time at most.")] = 512,
) -> None:
    """Answer for photos over HTTP, as JSON, until Ctrl-C.

    \b
    curl http://127.0.0.1:8000/health
    curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg http://127.0.0.1:8000/recognise
    curl -F a=@one.jpg -F b=@two.jpg 'http://127.0.0.1:8000/recognise?nearest=5&unknown=yes'
    """
    from productrec.console import say
    from productrec.errors import Interrupted
    from productrec.pipeline.loaded import LoadedRun
    from productrec.runtime import catch_stop
    from productrec.serving.limits import Limits
    from productrec.serving.server import check_host, serve_run

    check_host(host, allow_remote=allow_remote)
    with catch_stop() as stop:
        loaded = LoadedRun(run, views=views, index=index, settings=overrides or [])
        limits = Limits(
            most_bytes=max_bytes, timeout_s=timeout, connections=connections, batch_size=min(32, loaded.batch_size)
        )
        shown = f"[{host}]" if ":" in host else host

        def tell(bound: int) -> None:
            say(f"{run}: {loaded.way}")
            say(f"listening at http://{shown}:{bound}; Ctrl-C stops")
            tell_next("serve", address=f"http://{shown}:{bound}")

        answered = serve_run(loaded, host=host, port=port, limits=limits, stop=stop, tell=tell)
    raise Interrupted(f"stopped; {answered:,} photos were answered.", stop.exit_code)


COMMANDS = (serve,)
