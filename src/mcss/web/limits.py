"""How much a visitor of the page may ask for."""

from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """How much a visitor may ask for; what is more is refused with a message that says so."""

    upload_mb: int = 100
    """Megabytes of a file."""
    megapixels: int = 50
    """Millions of pixels of an image, or of one image of a video."""
    seconds: float = 30.0
    """Length of a video."""
    waiting: int = 16
    """Visitors whose files are received, wait or are worked on at a time; the next one is asked to come back."""
    work_seconds: float = 120.0
    """Time that work on one file may take."""
    memory_mb: int = 3000
    """Memory that work on one file may take beyond what the model needs (not on Windows and macOS)."""
    patience: float = 30.0
    """Seconds without a byte after which an upload is given up."""

    def __post_init__(self) -> None:
        for name in ("upload_mb", "megapixels", "seconds", "work_seconds", "memory_mb", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0, came {getattr(self, name)}.")
        if self.waiting < 1:
            raise ValueError(f"waiting: expected 1 or more, came {self.waiting}.")

    @property
    def upload_bytes(self) -> int:
        """Bytes of a file."""
        return self.upload_mb * MEGABYTE
