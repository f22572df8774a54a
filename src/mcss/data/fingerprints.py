"""What a capture is known by, wherever it lies and in whatever order its parts were written.

A computed capture is known by its settings and by what its images are of; its pixels differ by rounding from one
processor to the next. Any other is known by all that it holds.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mcss.data.schema import CaptureInfo, numbers
from mcss.progress import Task

_ROW = ["subject", "sequence", "action", "frame", "view"]
_BACKGROUND = ["stage", "view"]
"""All that counts of a computed capture's rows, and of its backgrounds."""


def fingerprint_of(info: CaptureInfo, frames: Any, backgrounds: Any, task: Task) -> str:
    """32 hexadecimal digits.

    Args:
        info: What the capture says of itself.
        frames: Its Lance table of frames.
        backgrounds: That of its backgrounds; None if there is none.
        task: Told of every row.
    """
    digests: list[bytes] = []
    for batch in frames.to_batches(batch_size=512, columns=_ROW if info.computed else None):
        digests += _row_digests(batch)
        task.advance(batch.num_rows)
    if backgrounds is not None:
        for batch in backgrounds.to_batches(batch_size=8, columns=_BACKGROUND if info.computed else None):
            digests += _row_digests(batch)
    about = json.dumps(info.metadata(), sort_keys=True).encode()
    return hashlib.sha256(about + b"".join(sorted(digests))).hexdigest()[:32]


def _row_digests(batch: Any) -> Iterator[bytes]:
    """A digest of each row; it does not depend on the place of the row."""
    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_fixed_size_list(field.type):
            columns.append([row.tobytes() for row in numbers(column)])
        elif pa.types.is_binary(field.type):
            columns.append(column.to_pylist())
        else:
            columns.append([repr(value).encode() for value in column.to_pylist()])
    for cells in zip(*columns, strict=True):
        digest = hashlib.sha256()
        for cell in cells:
            digest.update(len(cell).to_bytes(8, "little"))
            digest.update(cell)
        yield digest.digest()
