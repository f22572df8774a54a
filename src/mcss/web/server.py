"""The web server of ``mcss serve``: the page, and a few addresses that answer in JSON."""

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mcss.web.gallery import GalleryError
from mcss.web.handlers import PageHandlers
from mcss.web.requests import RequestError, json_response
from mcss.web.results import ForgottenError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PAGE = Path(__file__).with_name("page")
"""The files of the page."""


def application(handlers: PageHandlers, host: str, allowed: Sequence[str] = ()) -> "Starlette":
    """Build the server's application.

    Args:
        handlers: The handlers of requests.
        host: The address that it listens on, which requests must name.
        allowed: Other names by which it may be called.

    Raises:
        ImportError: The extra serve is not installed.
    """
    _load_uvicorn()
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    async def failed(_: "Request", error: Exception) -> "Response":
        match error:
            case RequestError():
                return json_response({"error": str(error)}, error.status)
            case ForgottenError() | GalleryError():
                return json_response({"error": str(error.args[0])}, 404)
            case HTTPException():
                return json_response({"error": str(error.detail)}, error.status_code)
            case ValueError():
                return json_response({"error": str(error)}, 422)
            case _:
                return json_response({"error": "something went wrong on the server; its log says what"}, 500)

    handled = (RequestError, ForgottenError, GalleryError, HTTPException, ValueError, Exception)
    return Starlette(
        routes=[
            Route("/api/about", handlers.about),
            Route("/api/queue", handlers.queue),
            Route("/api/results", handlers.analyse, methods=["POST"]),
            Route("/api/results/{name}", handlers.result),
            Route("/api/results/{name}/poses.{format}", handlers.poses),
            Route("/api/results/{name}/image", handlers.image),
            Route("/api/results/{name}/crops/{frame}", handlers.crop),
            Route("/api/comparison", handlers.comparison),
            Route("/api/neighbours", handlers.neighbours),
            Route("/api/movements", handlers.movements),
            Route("/api/gallery/{image}", handlers.gallery_details),
            Route("/api/gallery/{image}/image", handlers.gallery_image),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(OriginGuard, host=host, allowed=allowed)],
        exception_handlers=dict.fromkeys(handled, failed),
        lifespan=handlers.open,
    )


_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class OriginGuard:
    """Middleware that refuses requests of other web sites, and forbids the page to contact other hosts.

    A server that listens on all addresses answers to any of them and to the computer's name, but to no other name: a
    web site could make its own name lead to this computer.
    """

    def __init__(self, app: Any, host: str, allowed: Sequence[str] = ()) -> None:
        self._app = app
        self._any_address = host in ("0.0.0.0", "::")
        own = {host, "localhost", "127.0.0.1", "::1", *allowed}
        if self._any_address:
            own |= {socket.gethostname(), f"{socket.gethostname()}.local"}
        self._hosts = frozenset(name.lower() for name in own)

    def _answers_to(self, name: str) -> bool:
        return name.lower() in self._hosts or (self._any_address and _is_address(name))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if not self._answers_to(name.strip("[]")):
            message = f"this server does not answer to the name {name}; start it with --allow-host {name} if it should"
            await json_response({"error": message}, 421)(scope, receive, send)
            return
        if scope["method"] not in ("GET", "HEAD") and origin is not None and origin.split("://", 1)[-1] != host:
            await json_response({"error": "files are accepted only from this server's own page"}, 403)(
                scope, receive, send
            )
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(key.encode(), value.encode()) for key, value in _HEADERS.items()]
            await send(message)

        await self._app(scope, receive, guarded)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def run_server(handlers: PageHandlers, host: str, port: int, allowed: Sequence[str] = ()) -> None:
    """Serve until stopped.

    Args:
        handlers: The handlers of requests.
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        allowed: Other names by which it may be called.

    Raises:
        ImportError: The extra serve is not installed.
        OSError: The address cannot be used.
    """
    uvicorn = _load_uvicorn()
    from mcss.web.connections import protocol_of  # needs Uvicorn

    config = uvicorn.Config(
        application(handlers, host, allowed),
        http=protocol_of(handlers.limits),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=200,
        timeout_graceful_shutdown=3,
    )
    with _listening(host, port) as listener:
        handlers.address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise OSError(
            f"the server cannot listen on {host}, port {port} ({error}); choose others with --host and --port "
            "(--port 0 takes any that is free)"
        ) from error


def _load_uvicorn() -> ModuleType:
    """Import Uvicorn and Starlette, which are an extra.

    Raises:
        ImportError: They are not installed; the message names the extra.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ImportError("the page needs a web server: install it with `pip install 'mcss[serve]'`") from error
    return uvicorn
