"""The verb that shows a trained model on a web page."""

from dataclasses import dataclass, field
from pathlib import Path

from rich.markup import escape
from tyro.conf import OmitArgPrefixes

from mcss.cli.terminal import app, console, load_model
from mcss.data.capture import Capture
from mcss.progress import RichProgress
from mcss.video.detectors import DetectorName, person_detector
from mcss.web.gallery import CaptureGallery, Gallery, IndexGallery
from mcss.web.handlers import Studio
from mcss.web.limits import Limits
from mcss.web.server import run_server
from mcss.web.worker import Means


@dataclass(frozen=True)
class ServeOptions:
    """What is served, and where."""

    run: Path | None = None
    """A run folder or model file; the weights shipped with mcss by default."""
    find: DetectorName | None = None
    """Find people with this detector, as for `mcss predict`. By default an image is taken whole, and in a video
    whoever moves before the static camera is followed; visitors can draw a box in either."""
    detector_weights: Path | None = None
    """A file of the detector's weights, as for `mcss predict`."""
    index: str | None = None
    """An index of `mcss index`, made with the same run, whose images can be searched by pose."""
    capture: str | None = None
    """Without an index: a capture to search in. With one: where a capture of it is now, if it has been moved."""
    images: int = 6000
    """Without an index: so many of the capture's images are embedded at the start, evenly spread over it."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets everybody in your network in, without a password."""
    port: int = 7860
    """Likewise; 0 takes any that is free."""
    limits: Limits = field(default_factory=Limits)
    """How much visitors may ask for."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images: expected 1 or more, came {self.images}.")
        if not 0 <= self.port < 65536:
            raise ValueError(f"port: expected 0 to 65535, came {self.port}.")


@app.command
def serve(server: OmitArgPrefixes[ServeOptions] = ServeOptions()) -> None:
    """A web page: drop an image or a video, see the pose in 3D, and search by it. Asks nothing of the network.

    Args:
        server: What is served, and where.
    """
    model = load_model(server.run)
    if server.find is not None:
        person_detector(server.find, server.detector_weights)  # so that what is wrong is said here
    gallery: Gallery | None = None
    if server.index is not None:
        gallery = IndexGallery.open(server.index, model, server.capture)
    elif server.capture is not None:
        gallery = CaptureGallery.embedded(model, Capture.open(server.capture), server.images, RichProgress())

    def started(address: str) -> None:
        console.print(f"Open [bold]{escape(address)}[/] in a browser. Ctrl-C stops.", soft_wrap=True)

    try:
        means = Means(server.run, server.find, server.detector_weights)
        run_server(Studio(model.name, means, gallery, server.limits, started), server.host, server.port)
    except KeyboardInterrupt:
        console.print("Stopped; nothing is left behind.")
