"""What arrives with a request, held against the limits, and how it is answered."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcss.inference.locate import BoundingBox
from mcss.web.limits import Limits

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class RequestError(ValueError):
    """A request cannot be answered; the message is for the visitor who made it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def chunks(request: "Request", limits: Limits) -> AsyncIterator[bytes]:
    """Read the body of a request in chunks, up to four times the limit.

    A body over the limit is read all the same, within reason, because a browser that is still sending ignores answers.
    """
    from starlette.requests import ClientDisconnect

    size = 0
    stream = request.stream()
    clock = asyncio.get_running_loop().time
    deadline = clock() + limits.upload_seconds
    while size < 4 * limits.upload_bytes:
        left = deadline - clock()
        try:
            chunk = await asyncio.wait_for(anext(stream, None), min(limits.patience, max(left, 0)))
        except TimeoutError:
            if left < limits.patience:
                raise RequestError(
                    408, f"the file did not arrive within {limits.upload_seconds:g} s; send a smaller one"
                ) from None
            raise RequestError(408, f"no data arrived for {limits.patience:g} s; send the file again") from None
        except ClientDisconnect:
            raise RequestError(400, "the visitor has disconnected") from None
        if chunk is None:
            return
        size += len(chunk)
        yield chunk


async def receive(request: "Request", path: Path, limits: Limits) -> bytes:
    """Write the body of a request to a file; returns its first bytes."""
    size, head = 0, b""
    with path.open("xb") as file:
        async for chunk in chunks(request, limits):
            size += len(chunk)
            head = (head + chunk)[:16] if len(head) < 16 else head
            if size > limits.upload_bytes:
                file.truncate(0)
            else:
                await asyncio.to_thread(file.write, chunk)
    if size > limits.upload_bytes:
        raise RequestError(413, f"the file is larger than {limits.upload_mb} MB; make it smaller or shorter")
    return head


def box_of(text: str | None) -> BoundingBox | None:
    """Parse a box in shares of the image's sides; None if there is none."""
    if text is None:
        return None
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise RequestError(400, "box: expected x,y,width,height") from None
    inside = -1 <= x < 1 and -1 <= y < 1 and 0.01 <= width <= 2 and 0.01 <= height <= 2
    if not (inside and x + width > 0 and y + height > 0):
        raise RequestError(400, "the box is too small or lies outside the image; draw it again")
    return x, y, width, height


def number_of(text: str, name: str, end: int) -> int:
    """Parse a whole number from 0 to below `end`."""
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and int(text) < end):
        raise RequestError(400, f"{name}: expected a whole number from 0 to {end - 1}, got {text[:40]!r}")
    return int(text)


def seconds_of(text: str, name: str) -> float:
    """Parse a time of at least 0 s."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise RequestError(400, f"{name}: expected seconds from 0 on, got {text[:40]!r}")
    return value


def json_response(value: Any, status: int = 200) -> "Response":
    """Answer in JSON, which browsers are told not to cache."""
    from starlette.responses import JSONResponse

    headers = {"cache-control": "no-store"}
    if status >= HTTPStatus.BAD_REQUEST:
        headers["connection"] = "close"  # or the server would read on in an endless body
    return JSONResponse(value, status, headers=headers)


def jpeg_response(data: bytes, cached: str = "private, max-age=600") -> "Response":
    """Answer with a JPEG, which browsers keep for a while."""
    from starlette.responses import Response

    return Response(data, media_type="image/jpeg", headers={"cache-control": cached})
