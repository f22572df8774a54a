"""Handle the requests of the page, and answer in JSON and JPEG.

Files are uploaded as the plain body of a request, without their names, which therefore never reach the disk. They are
analysed by `mcss.web.worker`, one after the other in order of arrival.
"""

import asyncio
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mcss import __version__
from mcss.inference.locate import BoundingBox
from mcss.search.compare import CompareSettings, compare
from mcss.search.index_table import Filter
from mcss.search.memory_index import IndexedImage
from mcss.skeletons import JOINTS, PARENTS
from mcss.smoothing import SmoothingSettings
from mcss.web.analysis import AnalysisResult, for_visitors, rounded
from mcss.web.downloads import pose_file
from mcss.web.gallery import Gallery
from mcss.web.limits import Limits
from mcss.web.results import ResultStore
from mcss.web.uploads import UploadError, kind_of
from mcss.web.worker import Worker, WorkError, WorkerSettings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MOST_NEIGHBOURS = 48
"""Largest number of neighbours in one request."""


class RequestError(ValueError):
    """A request cannot be answered; the message is for the visitor who made it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(eq=False)
class PageHandlers:
    """The handlers of all requests, and what they share."""

    model: str
    """Name of the model."""
    worker_settings: WorkerSettings
    gallery: Gallery | None
    """The images that visitors can search; None for no search."""
    limits: Limits
    started: Callable[[str], None]
    """Called with the address once visitors can connect."""
    results: ResultStore = field(default_factory=ResultStore)
    address: str = ""
    folder: Path | None = None
    worker: Worker | None = None
    turn: asyncio.Lock | None = None
    waiting: int = 0
    """Files that are being received, are waiting or are being processed."""
    places: Counter[str] = field(default_factory=Counter)
    """The same for each address."""

    @asynccontextmanager
    async def open(self, _: Any) -> AsyncIterator[None]:
        """Keep a temporary folder and a worker process as long as the server runs."""
        with tempfile.TemporaryDirectory(prefix="mcss-serve-", ignore_cleanup_errors=True) as folder:
            self.folder, self.turn = Path(folder), asyncio.Lock()
            self.worker = await asyncio.to_thread(Worker, self.worker_settings, self.folder, self.limits)
            try:
                await asyncio.to_thread(self.worker.wait_until_ready)
                self.started(self.address)
                yield
            finally:
                self.worker.close()

    async def about(self, _: "Request") -> "Response":
        """Describe the server: model, limits, skeleton and gallery."""
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
        """How many files are being received, waiting or processed."""
        return json_response({"waiting": self.waiting})

    async def analyse(self, request: "Request") -> "Response":
        """Receive a file, and answer with what the model predicts from it."""
        box = _box(request.query_params.get("box"))
        address = request.client.host if request.client else ""
        refusal = ""
        if self.waiting >= self.limits.waiting:
            refusal = "there are too many visitors at the moment; try again in a minute"
        elif self.places[address] >= self.limits.files:
            refusal = f"{self.limits.files} of your files are being processed; wait for one of them"
        if refusal:
            async for _ in _chunks(request, self.limits):
                pass
            raise RequestError(503, refusal)
        assert self.folder is not None
        assert self.worker is not None
        assert self.turn is not None
        job = self.folder / secrets.token_hex(16)
        path = job / "file"
        self.waiting += 1
        self.places[address] += 1
        try:
            job.mkdir()
            head = await _receive(request, path, self.limits)
            try:
                kind = kind_of(head)
            except UploadError as error:
                raise RequestError(415, str(error)) from error
            async with self.turn:
                if await request.is_disconnected():
                    raise RequestError(400, "the visitor has disconnected")
                try:
                    result = await asyncio.to_thread(self.worker.analyse, path, kind, box)
                except WorkError as error:
                    raise RequestError(422, str(error)) from error
        finally:
            self.waiting -= 1
            self.places[address] -= 1
            if not self.places[address]:
                del self.places[address]
            await asyncio.to_thread(shutil.rmtree, job, ignore_errors=True)  # with whatever the worker left there
        return json_response({"id": self.results.keep(result), **result.about})

    def result(self, request: "Request") -> "Response":
        """What was predicted from a file before, for a page that is loaded again."""
        result = self._result(request)
        return json_response({"id": request.path_params["name"], **result.about})

    def poses(self, request: "Request") -> "Response":
        """The poses of a result as a file."""
        from starlette.responses import Response

        assert self.folder is not None
        data, kind = pose_file(self._result(request), request.path_params["format"], self.folder)
        return Response(data, media_type=kind, headers={"cache-control": "no-store"})

    def image(self, request: "Request") -> "Response":
        """The uploaded image, or the first one of the video."""
        return _jpeg(self._result(request).image)

    def crop(self, request: "Request") -> "Response":
        """A crop that the model saw."""
        crops = self._result(request).crops
        return _jpeg(crops[_number(request.path_params["frame"], "frame", len(crops))])

    def comparison(self, request: "Request") -> "Response":
        """Align two videos, and compare them."""
        query = request.query_params
        first, second = (self.results[query.get(name, "")] for name in ("first", "second"))
        settings = CompareSettings(smoothing=SmoothingSettings(smooth="none"))  # the poses are smoothed already
        try:
            compared = compare(first.pose_sequence("video A"), second.pose_sequence("video B"), settings)
        except ValueError as error:
            raise RequestError(422, for_visitors(str(error))) from error
        return json_response(
            {
                "pairs": np.stack([compared.a.frame, compared.b.frame], axis=1).tolist(),
                "time": np.round(compared.time_a - compared.time_a[0], 3).tolist(),
                "apart": np.round(compared.joints[:, 1:].mean(axis=1), 1).tolist(),
                "angles": [
                    {
                        "name": angle.name,
                        "a": round(angle.mean_a),
                        "b": round(angle.mean_b),
                        "apart": round(angle.mean, 1),
                    }
                    for angle in compared.differences()
                ],
            }
        )

    def neighbours(self, request: "Request") -> "Response":
        """Find the images nearest to a frame of a visitor's file, or to an image of the gallery."""
        gallery, query = self._gallery(), request.query_params
        image: IndexedImage | None = None
        if "image" in query:
            image = gallery.image(_number(query["image"], "image", len(gallery)))
            vector = gallery.index.vector(image.position)
        else:
            embedding = self.results[query.get("result", "")].embedding
            vector = embedding[_number(query.get("frame", "0"), "frame", len(embedding))]
        count = _number(query.get("count", "12"), "count", MOST_NEIGHBOURS + 1)
        names: dict[str, Any] = {
            key: tuple(query.getlist(key)) for key in ("subject", "view", "not_subject", "not_view")
        }
        same_recording = query.get("same_recording", "no") == "yes"
        hits = gallery.neighbours(vector, count, Filter(**names), image, same_recording)
        return json_response(
            {"found": [{**_described(gallery, hit), "distance": round(hit.distance, 4)} for hit in hits]}
        )

    def gallery_details(self, request: "Request") -> "Response":
        """Describe an image of the gallery: what it shows, its poses, and its other views."""
        gallery = self._gallery()
        image = gallery.image(_number(request.path_params["image"], "image", len(gallery)))
        predicted, true = gallery.poses(image.position)
        return json_response(
            {
                **_described(gallery, image),
                "pose": None if predicted is None else rounded(predicted),
                "true": None if true is None else rounded(true),
            }
        )

    def gallery_image(self, request: "Request") -> "Response":
        """An image of the gallery."""
        gallery = self._gallery()
        position = _number(request.path_params["image"], "image", len(gallery))
        return _jpeg(gallery.jpeg(position), cached="private, max-age=3600")

    def _result(self, request: "Request") -> AnalysisResult:
        return self.results[request.path_params["name"]]

    def _gallery(self) -> Gallery:
        if self.gallery is None:
            raise RequestError(
                404, "there is nothing to search in; start the server with --index INDEX or --capture CAPTURE"
            )
        return self.gallery


async def _chunks(request: "Request", limits: Limits) -> AsyncIterator[bytes]:
    """Read the body of a request in chunks, up to four times the limit.

    A body over the limit is read all the same, within reason, because a browser that is still sending ignores answers.
    """
    from starlette.requests import ClientDisconnect

    size = 0
    chunks = request.stream()
    clock = asyncio.get_running_loop().time
    deadline = clock() + limits.upload_seconds
    while size < 4 * limits.upload_bytes:
        left = deadline - clock()
        try:
            chunk = await asyncio.wait_for(anext(chunks, None), min(limits.patience, max(left, 0)))
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
        raise RequestError(413, f"the file is larger than {limits.upload_mb} MB; make it smaller or shorter")
    return head


def _box(text: str | None) -> BoundingBox | None:
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


def _number(text: str, name: str, end: int) -> int:
    """Parse a whole number from 0 to below `end`."""
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and int(text) < end):
        raise RequestError(400, f"{name}: expected a whole number from 0 to {end - 1}, got {text[:40]!r}")
    return int(text)


def _described(gallery: Gallery, image: IndexedImage) -> dict[str, Any]:
    return {**_identified(image), "others": [_identified(other) for other in gallery.index.other_views(image)]}


def _identified(image: IndexedImage) -> dict[str, Any]:
    return {
        "image": image.position,
        "subject": image.subject,
        "sequence": image.sequence,
        "frame": image.frame,
        "time": round(image.time, 3),
        "view": image.view,
    }


def json_response(value: Any, status: int = 200) -> "Response":
    """Answer in JSON, which browsers are told not to cache."""
    from starlette.responses import JSONResponse

    headers = {"cache-control": "no-store"}
    if status >= HTTPStatus.BAD_REQUEST:
        headers["connection"] = "close"  # or the server would read on in an endless body
    return JSONResponse(value, status, headers=headers)


def _jpeg(data: bytes, cached: str = "private, max-age=600") -> "Response":
    from starlette.responses import Response

    return Response(data, media_type="image/jpeg", headers={"cache-control": cached})
