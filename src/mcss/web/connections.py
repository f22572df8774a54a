"""Connections to the server: a deadline for the headers of a request, and a number of places for each address.

Uvicorn itself waits for a header as long as the connection stays open, so that a few hundred half-sent requests would
keep everybody else out.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from mcss.web.limits import Limits


def protocol_of(limits: Limits) -> type[H11Protocol]:
    """Return Uvicorn's protocol with the limits of this server."""

    class LimitedProtocol(H11Protocol):
        """HTTP/1.1 with a deadline for headers and places per address."""

        _deadline: asyncio.TimerHandle | None = None
        _is_refused = False

        def connection_made(self, transport: Any) -> None:
            peer = transport.get_extra_info("peername")
            clients = [getattr(other, "client", None) for other in self.connections]
            if peer and sum(bool(client and client[0] == peer[0]) for client in clients) >= limits.connections:
                self._is_refused = True
                transport.abort()
                return
            super().connection_made(transport)
            self._expect_header()

        def connection_lost(self, exc: Exception | None) -> None:
            if not self._is_refused:
                self._has_header()
                super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._expect_header()
            else:
                self._has_header()

        def _expect_header(self) -> None:
            if self._deadline is None:  # not anew with every byte
                self._deadline = self.loop.call_later(limits.header_seconds, self._close)

        def _has_header(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _close(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

    return LimitedProtocol
