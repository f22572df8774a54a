"""Indexes whose files are damaged end in the index's own error."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from test_index import IDENTITY, made

from mcss.errors import PoseIndexError
from mcss.search.index import PoseIndex
from mcss.search.memory_index import MemoryIndex


def used(folder: Path) -> None:
    """Read all of an index."""
    index = PoseIndex.open(folder)
    index.count()
    index.captures()
    index.names("subject")
    hits = index.search(made(0, 1).vector[0], top=3, exact=True)
    index.vector(hits[0])
    list(index.view_sequences())
    list(index.poses("predicted"))
    MemoryIndex.load(index)


def test_damaged_files_of_an_index_end_in_its_own_error(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    out = tmp_path / "index"
    index = PoseIndex.create(out, IDENTITY)
    index.remember_capture("c", "somewhere")
    index.add(made(0, 40))
    index.add(made(40, 40))
    used(out)
    rng = np.random.default_rng(0)
    refused = 0
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for _ in range(3):
            at, length = int(rng.integers(len(whole))), int(rng.integers(1, 40))
            for damaged in (whole[:at], whole[:at] + rng.bytes(length) + whole[at + length :]):
                path.write_bytes(damaged)
                with suppress(PoseIndexError):
                    used(out)
                    refused -= 1
                refused += 1
        path.write_bytes(whole)
    used(out)
    assert refused > 20
