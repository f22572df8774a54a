from pathlib import Path

import numpy as np
import pytest
from test_index import IDENTITY, made

from mcss.search import structure
from mcss.search.index import PoseIndex
from mcss.search.memory_index import MemoryIndex
from mcss.search.structure import Structure, partitions_for


def test_partitions_hold_five_hundred_entries_and_more_from_a_million_on() -> None:
    counts = (10, 5_000, 1_000_000, 4_000_000, 10_000_000)
    assert [partitions_for(count) for count in counts] == [2, 10, 2_000, 4_000, 6_325]


@pytest.mark.parametrize(
    ("layers", "count", "merged"),
    [((100,), 10, 0), ((30,), 10, 1), ((100, 20, 10), 5, 3), ((1000, 20, 10), 5, 2), ((1000, 200), 5, 0), ((), 5, 0)],
)
def test_a_new_layer_takes_in_younger_ones_that_are_not_much_larger(
    layers: tuple[int, ...], count: int, merged: int
) -> None:
    assert Structure(10, layers).merged_with(count) == merged


def test_an_index_has_outgrown_partitions_of_four_times_the_size_and_layers_that_are_mostly_removed() -> None:
    assert not Structure(10, (5_000,)).is_outgrown(20_499)
    assert Structure(10, (5_000,)).is_outgrown(20_500)
    assert not Structure(10, (5_000,)).is_outgrown(2_500)
    assert Structure(10, (5_000,)).is_outgrown(2_499)


def test_adding_to_a_structure_leaves_the_old_layer_alone_and_finds_the_new_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = PoseIndex.create(tmp_path / "i", IDENTITY)
    index.add(made(0, 6_000))
    assert index.update_structure() == 12
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "i").rglob("*.idx")}
    with monkeypatch.context() as patch:
        patch.setattr(structure, "_built", lambda table, count: pytest.fail("everything was partitioned anew"))
        for start in (6_000, 6_300, 6_600):
            index.add(made(start, 300, seed=start))
            assert index.update_structure() == 12
    assert Structure.of(index.dataset()) == Structure(12, (6_000, 900))
    assert index.partitions() == 12
    assert index.structured_count() == index.count() == 6_900
    assert all(path.stat().st_mtime_ns == time for path, time in files.items() if path.exists())
    late = made(6_600, 300, seed=6_600)
    memory = MemoryIndex.load(index)
    for query in late.vector[:5]:
        exact = [hit.row for hit in index.search(query, 10, exact=True)]
        for searched in (index, memory):
            found = [hit.row for hit in searched.search(query, 10, probes=8)]
            assert len(set(found) & set(exact)) >= 8
            assert found[0] == exact[0]
    index.add(made(6_900, 17_600, seed=2))
    assert index.update_structure() == 49, "it has outgrown its partitions"
    assert Structure.of(index.dataset()) == Structure(49, (24_500,))
    assert np.isfinite(index.vector(index.search(late.vector[0], 1)[0])).all()
