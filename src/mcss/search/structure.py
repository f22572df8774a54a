"""The search structure of an index: embeddings in partitions of near ones (IVF-Flat), in layers of growing age.

Entries that are added go to the existing partitions, as a small layer beside the older ones; a layer is merged with
older ones that are not much larger, so that there are few. Only when the index has outgrown its partitions are all
entries partitioned anew: adding to a large index takes time for what is added, not for the index.
"""

import math
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mcss.search.database import lancedb_module

STRUCTURED_FROM = 5_000
"""Entries from which on an index gets a search structure; smaller ones are searched in full within milliseconds."""

PARTITION = 500
"""Average number of entries in a partition, up to a million entries; then it grows with their square root."""

STRUCTURE = "vector_idx"
"""LanceDB's name of the search structure over the embeddings."""

_NAMES = ("subject", "view", "sequence")
"""Columns whose names have an index of their own, for filters."""

_OLDER = 4
"""A layer is merged with older ones of up to this many times its entries."""

_OUTGROWN = 4
"""All entries are partitioned anew when this many times the partitions would be right."""

_FRAGMENT = 131_072
"""Entries in a file of the table: files of fewer are joined."""


@dataclass(frozen=True)
class Structure:
    """What the search structure of a table is like."""

    partitions: int
    layers: tuple[int, ...]
    """Entries of each layer, the oldest first, with those that were removed since."""

    @classmethod
    def of(cls, dataset: Any) -> "Structure | None":
        """Describe that of a Lance table; None if it has none."""
        os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")  # thousands of embeddings, as text
        if all(index.name != STRUCTURE for index in dataset.describe_indices()):
            return None
        layers = dataset.stats.index_stats(STRUCTURE)["indices"]
        counts = tuple(sum(partition["size"] for partition in layer["partitions"]) for layer in layers)
        return cls(max(len(layer["partitions"]) for layer in layers), counts)

    def is_outgrown(self, count: int) -> bool:
        """Whether an index of `count` entries needs other partitions."""
        return partitions_for(count) > _OUTGROWN * self.partitions or sum(self.layers) > 2 * count

    def merged_with(self, count: int) -> int:
        """How many of the youngest layers are merged with a new one of `count` entries."""
        merged = 0
        for layer in reversed(self.layers):
            if layer > _OLDER * count:
                break
            count += layer
            merged += 1
        return merged


def partitions_for(count: int) -> int:
    """The number of partitions for `count` entries: making them takes time that grows with both."""
    return max(2, min(count // PARTITION, round(2 * math.sqrt(count))))


def updated(table: Any) -> int:
    """Bring the search structure of a LanceDB table up to date, and join its small files.

    Returns:
        The number of partitions; 0 if the table is small enough to be searched in full.
    """
    dataset, count = table.to_lance(), table.count_rows()
    dataset.optimize.compact_files(target_rows_per_fragment=_FRAGMENT)
    structure = Structure.of(dataset)
    if structure is None or structure.is_outgrown(count):
        partitions = _built(table, count) if count >= STRUCTURED_FROM else 0
    else:
        missing = int(dataset.stats.index_stats(STRUCTURE)["num_unindexed_rows"])
        if missing:
            optimise = dataset.optimize.optimize_indices
            optimise(index_names=[STRUCTURE], num_indices_to_merge=structure.merged_with(missing))
            optimise(index_names=[f"{name}_idx" for name in _NAMES])
        partitions = structure.partitions
    dataset.cleanup_old_versions(older_than=timedelta(days=1))
    return partitions


def _built(table: Any, count: int) -> int:
    """Partition all entries anew."""
    index, partitions = lancedb_module().index, partitions_for(count)
    for column in _NAMES:
        table.create_index(column, config=index.Bitmap(), replace=True)
    # LanceDB's defaults, more samples and iterations, take ten times as long and do not raise the recall.
    flat = index.IvfFlat(distance_type="l2", num_partitions=partitions, max_iterations=10, sample_rate=32)
    table.create_index("vector", config=flat, replace=True)
    return partitions
