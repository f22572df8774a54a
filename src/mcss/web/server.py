"""The web server of ``mcss serve``: a page and a few addresses that answer in JSON."""

import socket
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mcss.web.gallery import GalleryError
from mcss.web.handlers import Studio, VisitError, json_response
from mcss.web.results import ForgottenError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PAGE = Path(__file__).with_name("page")
"""The page's own files."""


def application(studio: Studio, host: str) -> "Starlette":
    """The server's application.

    Args:
        studio: What it works with.
        host: The address that it listens on, which is how it may be called.

    Raises:
        ImportError: The extra is not installed.
    """
    _load_uvicorn()
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    async def failed(_: "Request", error: Exception) -> "Response":
        match error:
            case VisitError():
                return json_response({"error": str(error)}, error.status)
            case ForgottenError() | GalleryError():
                return json_response({"error": str(error.args[0])}, 404)
            case HTTPException():
                return json_response({"error": str(error.detail)}, error.status_code)
            case ValueError():
                return json_response({"error": str(error)}, 422)
            case _:
                return json_response({"error": "something went wrong here; the server's log says what"}, 500)

    handled = (VisitError, ForgottenError, GalleryError, HTTPException, ValueError, Exception)
    return Starlette(
        routes=[
            Route("/api/about", studio.about),
            Route("/api/queue", studio.queue),
            Route("/api/looks", studio.look, methods=["POST"]),
            Route("/api/looks/{name}/image", studio.image),
            Route("/api/looks/{name}/crops/{frame}", studio.crop),
            Route("/api/comparison", studio.comparison),
            Route("/api/neighbours", studio.neighbours),
            Route("/api/gallery/{place}", studio.gallery_about),
            Route("/api/gallery/{place}/image", studio.gallery_image),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(Guard, host=host)],
        exception_handlers=dict.fromkeys(handled, failed),
        lifespan=studio.open,
    )


_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Keeps other web sites from using the server through a visitor's browser, and the page from asking others."""

    def __init__(self, app: Any, host: str) -> None:
        self._app = app
        self._hosts = None if host in ("0.0.0.0", "::") else {host, "localhost", "127.0.0.1", "::1"}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self._hosts is not None and name.strip("[]") not in self._hosts:
            await json_response({"error": f"this server is not called {name}"}, 421)(scope, receive, send)
            return
        if scope["method"] not in ("GET", "HEAD") and origin is not None and origin.split("://", 1)[-1] != host:
            await json_response({"error": "files are taken from this server's own page alone"}, 403)(
                scope, receive, send
            )
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(key.encode(), value.encode()) for key, value in _HEADERS.items()]
            await send(message)

        await self._app(scope, receive, guarded)


def run_server(studio: Studio, host: str, port: int) -> None:
    """Serve until stopped.

    Args:
        studio: What it works with.
        host: Address to listen on.
        port: Likewise; 0 for any that is free.

    Raises:
        ImportError: The extra is not installed.
        OSError: The address cannot be used.
    """
    uvicorn = _load_uvicorn()
    config = uvicorn.Config(
        application(studio, host),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=200,
        timeout_graceful_shutdown=3,
    )
    with _listening(host, port) as listener:
        studio.address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise OSError(
            f"nobody can listen on {host}, port {port} ({error}); choose another with --host and --port "
            "(--port 0 takes any that is free)"
        ) from error


def _load_uvicorn() -> ModuleType:
    """Uvicorn and Starlette, which are an extra.

    Raises:
        ImportError: They are not installed; the message names the extra.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ImportError("the page needs a web server: install it with `pip install 'mcss[serve]'`") from error
    return uvicorn
