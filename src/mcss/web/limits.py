"""Limits on what visitors of the page may send."""

from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Limits on what visitors may send; beyond them, a file is refused with a message that names the limit."""

    upload_mb: int = 100
    """Largest file in megabytes."""
    megapixels: int = 50
    """Most pixels of an image, or of one image of a video, in millions."""
    seconds: float = 30.0
    """Longest video in seconds."""
    waiting: int = 16
    """Most visitors whose files are received, wait or are processed at a time; further ones are asked to come back."""
    work_seconds: float = 120.0
    """Longest time in seconds for processing one file."""
    memory_mb: int = 3000
    """Most memory in megabytes for processing one file, beyond what the model needs (not on Windows and macOS)."""
    patience: float = 30.0
    """Seconds without data after which an upload is given up."""
    upload_seconds: float = 300.0
    """Longest time in seconds for receiving one file."""
    header_seconds: float = 10.0
    """Longest time in seconds until a request has said what it wants."""
    files: int = 4
    """Most files of one address that are received, wait or are processed at a time."""
    connections: int = 60
    """Most open connections of one address; a browser uses six."""

    def __post_init__(self) -> None:
        positive = ("upload_mb", "megapixels", "seconds", "work_seconds", "memory_mb", "patience", "upload_seconds")
        for name in (*positive, "header_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}.")
        for name in ("waiting", "files", "connections"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}.")

    @property
    def upload_bytes(self) -> int:
        """Largest file in bytes."""
        return self.upload_mb * MEGABYTE
