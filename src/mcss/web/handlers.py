"""What the web server does for its visitors: requests in, answers in JSON and JPEG out.

Files are sent as the plain body of a request, without a name: what visitors call them never reaches the disk. Work on
them is done by `mcss.web.worker`, one after the other in the order of arrival.
"""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mcss import __version__
from mcss.inference.locate import Rectangle
from mcss.inference.smoothing import SmoothingSettings
from mcss.search.compare import CompareSettings, compare
from mcss.search.entries import Filter
from mcss.skeletons import JOINTS, PARENTS
from mcss.web.analysis import Answer, clip_of, for_visitors, rounded
from mcss.web.gallery import Found, Gallery, Shown, moments
from mcss.web.limits import Limits
from mcss.web.results import Looks
from mcss.web.uploads import UploadError, kind_of
from mcss.web.worker import Means, Worker, WorkError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MOST_NEIGHBOURS = 48
"""Neighbours that may be asked for at a time."""


class VisitError(ValueError):
    """A request that cannot be answered; the message is for whoever made it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(eq=False)
class Studio:
    """What the server works with, and who is waiting."""

    model: str
    means: Means
    gallery: Gallery | None
    limits: Limits
    started: Callable[[str], None]
    """Called with the address when visitors can come."""
    looks: Looks = field(default_factory=Looks)
    address: str = ""
    folder: Path | None = None
    worker: Worker | None = None
    turn: asyncio.Lock | None = None
    waiting: int = 0

    @asynccontextmanager
    async def open(self, _: Any) -> AsyncIterator[None]:
        """Have a folder and a worker as long as the server runs."""
        with tempfile.TemporaryDirectory(prefix="mcss-serve-", ignore_cleanup_errors=True) as folder:
            self.folder, self.turn = Path(folder), asyncio.Lock()
            self.worker = await asyncio.to_thread(Worker, self.means, self.folder, self.limits)
            try:
                await asyncio.to_thread(self.worker.wait_until_ready)
                self.started(self.address)
                yield
            finally:
                self.worker.close()

    async def about(self, _: "Request") -> "Response":
        """What the page needs to know at first."""
        gallery = self.gallery
        return json_response(
            {
                "version": __version__,
                "model": self.model,
                "joints": JOINTS,
                "parents": PARENTS,
                "limits": {
                    "upload_mb": self.limits.upload_mb,
                    "megapixels": self.limits.megapixels,
                    "seconds": self.limits.seconds,
                },
                "gallery": gallery
                and {
                    "name": gallery.name,
                    "images": len(gallery),
                    "subjects": gallery.subjects,
                    "views": gallery.views,
                },
            }
        )

    async def queue(self, _: "Request") -> "Response":
        """How many files are being received, waiting or worked on."""
        return json_response({"waiting": self.waiting})

    async def look(self, request: "Request") -> "Response":
        """A file comes in; what was found in it goes out."""
        box = _box(request.query_params.get("box"))
        if self.waiting >= self.limits.waiting:
            async for _ in _chunks(request, self.limits):
                pass
            raise VisitError(503, "there are too many visitors at the moment; try again in a minute")
        assert self.folder is not None
        assert self.worker is not None
        assert self.turn is not None
        path = self.folder / secrets.token_hex(16)
        self.waiting += 1
        try:
            head = await _receive(request, path, self.limits)
            try:
                kind = kind_of(head)
            except UploadError as error:
                raise VisitError(415, str(error)) from error
            async with self.turn:
                if await request.is_disconnected():
                    raise VisitError(400, "the visitor has gone")
                try:
                    answer = await asyncio.to_thread(self.worker.look, path, kind, box)
                except WorkError as error:
                    raise VisitError(422, str(error)) from error
        finally:
            self.waiting -= 1
            path.unlink(missing_ok=True)
        return json_response({"id": self.looks.keep(answer), **answer.about})

    def image(self, request: "Request") -> "Response":
        """The image that was sent, or the first one of the video."""
        return _jpeg(self._answer(request).image)

    def crop(self, request: "Request") -> "Response":
        """What the model saw."""
        answer = self._answer(request)
        return _jpeg(answer.crops[_number(request.path_params["frame"], "frame", len(answer.crops))])

    def comparison(self, request: "Request") -> "Response":
        """Two videos laid beside each other."""
        query = request.query_params
        first, second = (self.looks[query.get(name, "")] for name in ("first", "second"))
        settings = CompareSettings(smoothing=SmoothingSettings(smooth="none"))  # they are smooth already
        try:
            found = compare(clip_of(first, "video A"), clip_of(second, "video B"), settings)
        except ValueError as error:
            raise VisitError(422, for_visitors(str(error))) from error
        return json_response(
            {
                "pairs": np.stack([found.a.frame, found.b.frame], axis=1).tolist(),
                "time": np.round(found.time_a - found.time_a[0], 3).tolist(),
                "apart": np.round(found.joints[:, 1:].mean(axis=1), 1).tolist(),
                "angles": [
                    {"name": one.name, "a": round(one.mean_a), "b": round(one.mean_b), "apart": round(one.mean, 1)}
                    for one in found.differences()
                ],
            }
        )

    def neighbours(self, request: "Request") -> "Response":
        """The images nearest to a frame of a visitor's, or to an image of the gallery."""
        gallery, query = self._gallery(), request.query_params
        asked: Shown | None = None
        if "image" in query:
            asked = gallery.shown(_number(query["image"], "image", len(gallery)))
            vector = gallery.embedding(asked.place)
        else:
            answer = self.looks[query.get("look", "")]
            vector = answer.embedding[_number(query.get("frame", "0"), "frame", len(answer.embedding))]
        count = _number(query.get("count", "12"), "count", MOST_NEIGHBOURS + 1)
        names: dict[str, Any] = {
            key: tuple(query.getlist(key)) for key in ("subject", "view", "not_subject", "not_view")
        }
        own = query.get("own", "no") == "yes"
        found: list[Found] = []
        top = 16 * count
        while len(found) < count:
            some = gallery.nearest(vector, top, Filter(**names))
            found = moments(some, count, asked, own)
            if len(some) < top:
                break
            top *= 8
        return json_response(
            {
                "found": [
                    {
                        **_shown(one.shown),
                        "distance": round(one.distance, 4),
                        "others": [_shown(other) for other in gallery.others(one.shown)],
                    }
                    for one in found
                ]
            }
        )

    def gallery_about(self, request: "Request") -> "Response":
        """An image of the gallery: what it shows, its poses, the other views."""
        gallery = self._gallery()
        shown = gallery.shown(_number(request.path_params["place"], "image", len(gallery)))
        pose, true = gallery.poses(shown.place)
        return json_response(
            {
                **_shown(shown),
                "pose": None if pose is None else rounded(pose),
                "true": None if true is None else rounded(true),
                "others": [_shown(other) for other in gallery.others(shown)],
            }
        )

    def gallery_image(self, request: "Request") -> "Response":
        """An image of the gallery."""
        gallery = self._gallery()
        place = _number(request.path_params["place"], "image", len(gallery))
        return _jpeg(gallery.image(place), kept="private, max-age=3600")

    def _answer(self, request: "Request") -> Answer:
        return self.looks[request.path_params["name"]]

    def _gallery(self) -> Gallery:
        if self.gallery is None:
            raise VisitError(404, "there is nothing to search in; start with --index INDEX or --capture CAPTURE")
        return self.gallery


async def _chunks(request: "Request", limits: Limits) -> AsyncIterator[bytes]:
    """The body of a request as it comes in, up to four times as much as is allowed.

    What is too much is read all the same, within reason: a browser that is still sending does not listen to an answer.
    """
    from starlette.requests import ClientDisconnect

    size = 0
    chunks = request.stream()
    while size < 4 * limits.upload_bytes:
        try:
            chunk = await asyncio.wait_for(anext(chunks, None), limits.patience)
        except TimeoutError:
            raise VisitError(408, f"nothing came for {limits.patience:g} s; send the file again") from None
        except ClientDisconnect:
            raise VisitError(400, "the visitor has gone") from None
        if chunk is None:
            return
        size += len(chunk)
        yield chunk


async def _receive(request: "Request", path: Path, limits: Limits) -> bytes:
    """Write the body of a request to a file; returns its first bytes."""
    size, head = 0, b""
    with path.open("xb") as file:
        async for chunk in _chunks(request, limits):
            size += len(chunk)
            head = (head + chunk)[:16] if len(head) < 16 else head
            if size > limits.upload_bytes:
                file.truncate(0)
            else:
                await asyncio.to_thread(file.write, chunk)
    if size > limits.upload_bytes:
        raise VisitError(413, f"the file is larger than {limits.upload_mb} MB; make it smaller or shorter")
    return head


def _box(text: str | None) -> Rectangle | None:
    if text is None:
        return None
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise VisitError(400, "box: expected x,y,width,height") from None
    inside = -1 <= x < 1 and -1 <= y < 1 and 0.01 <= width <= 2 and 0.01 <= height <= 2
    if not (inside and x + width > 0 and y + height > 0):
        raise VisitError(400, "the box is too small or lies outside the image; draw it anew")
    return x, y, width, height


def _number(text: str, name: str, end: int) -> int:
    """A whole number from 0 to below `end`."""
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and int(text) < end):
        raise VisitError(400, f"{name}: expected a whole number from 0 to {end - 1}, came {text[:40]!r}")
    return int(text)


def _shown(shown: Shown) -> dict[str, Any]:
    return {
        "image": shown.place,
        "subject": shown.subject,
        "sequence": shown.sequence,
        "frame": shown.frame,
        "time": round(shown.time, 3),
        "view": shown.view,
    }


def json_response(value: Any, status: int = 200) -> "Response":
    """An answer in JSON that no browser keeps."""
    from starlette.responses import JSONResponse

    headers = {"cache-control": "no-store"}
    if status >= HTTPStatus.BAD_REQUEST:
        headers["connection"] = "close"  # or the server would go on reading what is left of an endless body
    return JSONResponse(value, status, headers=headers)


def _jpeg(data: bytes, kept: str = "private, max-age=600") -> "Response":
    from starlette.responses import Response

    return Response(data, media_type="image/jpeg", headers={"cache-control": kept})
