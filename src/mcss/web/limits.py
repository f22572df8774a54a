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

    def __post_init__(self) -> None:
        for name in ("upload_mb", "megapixels", "seconds", "work_seconds", "memory_mb", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}.")
        if self.waiting < 1:
            raise ValueError(f"waiting: expected 1 or more, got {self.waiting}.")

    @property
    def upload_bytes(self) -> int:
        """Largest file in bytes."""
        return self.upload_mb * MEGABYTE
