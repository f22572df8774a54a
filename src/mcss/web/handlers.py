"""Handle the requests of the page, and answer in JSON and JPEG.

Files are uploaded as the plain body of a request, without their names, which therefore never reach the disk. They are
analysed by `mcss.web.worker`, one after the other in order of arrival.
"""

import asyncio
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mcss import __version__
from mcss.errors import QueryError
from mcss.files import temporary_folder
from mcss.inference.locate import BoundingBox
from mcss.search.compare import CompareSettings, compare
from mcss.search.index_table import Filter, ViewSequence
from mcss.search.memory_index import IndexedImage
from mcss.skeletons import JOINTS, PARENTS
from mcss.smoothing import SmoothingSettings
from mcss.web.analysis import AnalysisResult, StoppedError, for_visitors, rounded
from mcss.web.downloads import pose_file
from mcss.web.gallery import Gallery
from mcss.web.limits import Limits
from mcss.web.requests import RequestError, box_of, chunks, jpeg_response, json_response, number_of, receive, seconds_of
from mcss.web.results import ResultStore
from mcss.web.uploads import MediaKind, UploadError, kind_of
from mcss.web.worker import REPORT_SECONDS, Worker, WorkError, WorkerSettings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MOST_NEIGHBOURS = 48
"""Largest number of neighbours in one request."""


MOST_MOVEMENTS = 24
"""Largest number of movements in one request."""

LONGEST_MOVEMENT = 20.0
"""Longest movement in seconds that is searched for."""


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
    in_work: str | None = None
    """The name that the visitor has given to the file that is being processed."""
    places: Counter[str] = field(default_factory=Counter)
    """The same for each address."""

    @asynccontextmanager
    async def open(self, _: Any) -> AsyncIterator[None]:
        """Keep a temporary folder and a worker process as long as the server runs."""
        with temporary_folder("mcss-serve") as folder:
            self.folder, self.turn = folder, asyncio.Lock()
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

    async def queue(self, request: "Request") -> "Response":
        """How many files are being received, waiting or processed, and how far the work on the visitor's file is."""
        mine = self.worker is not None and self.in_work is not None and request.query_params.get("job") == self.in_work
        return json_response({"waiting": self.waiting, "share": self.worker.share if mine and self.worker else None})

    async def analyse(self, request: "Request") -> "Response":
        """Receive a file, and answer with what the model predicts from it."""
        box = box_of(request.query_params.get("box"))
        address = request.client.host if request.client else ""
        refusal = ""
        if self.waiting >= self.limits.waiting:
            refusal = "there are too many visitors at the moment; try again in a minute"
        elif self.places[address] >= self.limits.files:
            refusal = f"{self.limits.files} of your files are being processed; wait for one of them"
        if refusal:
            async for _ in chunks(request, self.limits):
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
            head = await receive(request, path, self.limits)
            try:
                kind = kind_of(head)
            except UploadError as error:
                raise RequestError(415, str(error)) from error
            async with self.turn:
                self.in_work = request.query_params.get("job")
                result = await self._worked_on(request, path, kind, box)
        finally:
            self.waiting -= 1
            self.places[address] -= 1
            if not self.places[address]:
                del self.places[address]
            await asyncio.to_thread(shutil.rmtree, job, ignore_errors=True)  # with whatever the worker left there
        return json_response({"id": self.results.keep(result), **result.about})

    async def _worked_on(
        self, request: "Request", path: Path, kind: MediaKind, box: BoundingBox | None
    ) -> AnalysisResult:
        """Let the worker process a file; a visitor who leaves stops that."""
        assert self.worker is not None
        if await request.is_disconnected():
            raise RequestError(400, "the visitor has disconnected")
        work = asyncio.create_task(asyncio.to_thread(self.worker.analyse, path, kind, box))
        try:
            while not (await asyncio.wait({work}, timeout=REPORT_SECONDS))[0]:
                if await request.is_disconnected():
                    self.worker.cancel()
            return work.result()
        except WorkError as error:
            raise RequestError(422, str(error)) from error
        except StoppedError as error:
            raise RequestError(400, "the visitor has disconnected") from error
        finally:
            self.in_work = None

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
        return jpeg_response(self._result(request).image)

    def crop(self, request: "Request") -> "Response":
        """A crop that the model saw."""
        crops = self._result(request).crops
        return jpeg_response(crops[number_of(request.path_params["frame"], "frame", len(crops))])

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
            image = gallery.image(number_of(query["image"], "image", len(gallery)))
            vector = gallery.index.vector(image.position)
        else:
            embedding = self.results[query.get("result", "")].embedding
            vector = embedding[number_of(query.get("frame", "0"), "frame", len(embedding))]
        count = number_of(query.get("count", "12"), "count", MOST_NEIGHBOURS + 1)
        names: dict[str, Any] = {
            key: tuple(query.getlist(key)) for key in ("subject", "view", "not_subject", "not_view")
        }
        same_recording = query.get("same_recording", "no") == "yes"
        hits = gallery.neighbours(vector, count, Filter(**names), image, same_recording)
        return json_response(
            {"found": [{**_described(gallery, hit), "distance": round(hit.distance, 4)} for hit in hits]}
        )

    def movements(self, request: "Request") -> "Response":
        """Find the stretches that show the movement in a visitor's video, or around an image of the gallery."""
        gallery, query = self._gallery(), request.query_params
        count = number_of(query.get("count", "6"), "count", MOST_MOVEMENTS + 1)
        names: dict[str, Any] = {
            key: tuple(query.getlist(key)) for key in ("subject", "view", "not_subject", "not_view")
        }
        own: ViewSequence | None = None
        if "image" in query:
            position = number_of(query["image"], "image", len(gallery))
            own = gallery.around(position, min(seconds_of(query.get("around", "1"), "around"), LONGEST_MOVEMENT / 2))
            vector, time = own.vector, own.time
        else:
            result = self.results[query.get("result", "")]
            time = np.array([frame["time"] for frame in result.about["frames"]], np.float64)
            since, until = seconds_of(query.get("since", "0"), "since"), seconds_of(query.get("until", "1e6"), "until")
            chosen = (time >= since - 1e-3) & (time <= min(until, since + LONGEST_MOVEMENT) + 1e-3)
            vector, time = result.embedding[chosen], time[chosen]
        try:
            found = gallery.movements(vector, time, count, Filter(**names), own)
        except QueryError:
            raise RequestError(422, "there are too few images in this time for a movement; choose more of it") from None
        return json_response(
            {
                "found": [
                    {
                        **_identified(movement.first),
                        "until": round(movement.last.time, 3),
                        "strip": movement.strip,
                        "distance": round(movement.distance, 4),
                    }
                    for movement in found
                ]
            }
        )

    def gallery_details(self, request: "Request") -> "Response":
        """Describe an image of the gallery: what it shows, its poses, and its other views."""
        gallery = self._gallery()
        image = gallery.image(number_of(request.path_params["image"], "image", len(gallery)))
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
        position = number_of(request.path_params["image"], "image", len(gallery))
        return jpeg_response(gallery.jpeg(position), cached="private, max-age=3600")

    def _result(self, request: "Request") -> AnalysisResult:
        return self.results[request.path_params["name"]]

    def _gallery(self) -> Gallery:
        if self.gallery is None:
            raise RequestError(
                404, "there is nothing to search in; start the server with --index INDEX or --capture CAPTURE"
            )
        return self.gallery


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
