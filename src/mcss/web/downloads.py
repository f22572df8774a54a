"""The poses of a result as a file that other programs read."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mcss.inference.outputs import OUTPUT_FORMATS, OutputFormat, write_poses
from mcss.inference.pose_sequence import rate_of
from mcss.web.analysis import AnalysisResult

MEDIA_TYPES: dict[OutputFormat, str] = {"json": "application/json", "csv": "text/csv", "angles": "text/csv"}
"""The media types of formats that are text for browsers; others are only saved."""


def pose_file(result: AnalysisResult, name: str, folder: Path) -> tuple[bytes, str]:
    """Write the canonical poses of a result in a format; returns the file and its media type.

    Args:
        result: The result.
        name: The format, such as bvh.
        folder: A folder for temporary files.

    Raises:
        ValueError: There is no such format.
    """
    formats = [known for known in OUTPUT_FORMATS if known == name]
    if not formats:
        raise ValueError(f"poses: expected a file of {', '.join(OUTPUT_FORMATS)}, got {name[:20]!r}.")
    sequence = result.pose_sequence("poses")
    if len(sequence) > 1:
        sequence = replace(sequence, rate=rate_of(sequence.time))
    with TemporaryDirectory(dir=folder) as place:
        (path,) = write_poses(sequence, Path(place), (formats[0],), "canonical")
        return path.read_bytes(), MEDIA_TYPES.get(formats[0], "application/octet-stream")
