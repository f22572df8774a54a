import os
import shutil
import subprocess
import sys
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from captures_for_tests import INFO, stick_part
from mcss.data.capture import Capture
from mcss.data.schema import Frame
from mcss.data.writer import CaptureWriter
from mcss.errors import PoseIndexError
from mcss.models.model import Model, load
from mcss.search.index import PoseIndex
from mcss.search.index_table import IMAGE_COLUMNS, Entries, Filter, Hit, ModelIdentity
from mcss.search.indexing import identity_of, index_capture
from mcss.search.memory_index import MemoryIndex
from mcss.search.structure import STRUCTURED_FROM
from runs_for_tests import small_run

IDENTITY = ModelIdentity("abc", 8, "runs/one")


def made(first: int, count: int, seed: int = 0, capture: str = "c", dim: int = 8) -> Entries:
    """Entries with random unit vectors: rows from `first` on, from four views and three people."""
    rng = np.random.default_rng(seed)
    rows = np.arange(first, first + count)
    vector = rng.normal(size=(count, dim)).astype(np.float32)
    vector /= np.linalg.norm(vector, axis=1, keepdims=True)
    return Entries(
        capture=capture,
        row=rows,
        subject=[f"S{row % 3}" for row in rows],
        sequence=["It's walking"] * count,
        frame=rows // 4,
        time=rows // 4 / 10,
        view=[str(row % 4) for row in rows],
        vector=vector,
    )


def brute_force(entries: Entries, query: np.ndarray, top: int, condition: Filter) -> list[int]:
    """Return the rows of the nearest entries by comparing with every entry."""
    found = []
    for i in range(len(entries)):
        if (condition.view and entries.view[i] not in condition.view) or entries.view[i] in condition.not_view:
            continue
        if condition.subject and entries.subject[i] not in condition.subject:
            continue
        if entries.subject[i] in condition.not_subject:
            continue
        if condition.between and not condition.between[0] <= entries.time[i] <= condition.between[1]:
            continue
        found.append((float(((entries.vector[i] - query) ** 2).sum()), int(entries.row[i])))
    return [row for _, row in sorted(found)[:top]]


FILTERS = (
    Filter(),
    Filter(not_view=("1",), not_subject=("S2",)),
    Filter(view=("0", "3"), subject=("S1",)),
    Filter(between=(0.5, 2.0), sequence=("It's walking",)),
)


@pytest.mark.parametrize("condition", FILTERS)
def test_a_search_finds_what_comparing_with_every_entry_finds(tmp_path: Path, condition: Filter) -> None:
    index, entries = PoseIndex.create(tmp_path / "i", IDENTITY), made(0, 400)
    index.add(entries)
    query = made(0, 1, seed=9).vector[0]
    expected = brute_force(entries, query, 7, condition)
    assert [hit.row for hit in index.search(query, 7, condition)] == expected
    assert [hit.row for hit in MemoryIndex.load(index).search(query, 7, condition)] == expected
    best = index.search(query, 1, condition)[0]
    assert best.distance == pytest.approx(np.linalg.norm(entries.vector[best.row] - query), abs=1e-5)
    assert best.name == f"S{best.row % 3}/It's walking/{best.row // 4}/{best.row % 4}"


def test_add_replaces_remove_removes_and_count_counts(tmp_path: Path) -> None:
    index = PoseIndex.create(tmp_path / "i", IDENTITY)
    index.add(made(0, 40))
    index.add(made(20, 40, seed=1))
    assert index.count() == 60
    new = made(20, 40, seed=1)
    assert index.search(new.vector[0], 1)[0].row == 20
    assert index.remove(Filter(subject=("S0",), view=("0",))) == 5
    assert index.count(Filter(subject=("S0",))) == 15
    index.add(made(0, 8, capture="another"))
    assert index.count(capture="another") == 8
    assert index.remove(capture="another") == 8
    with pytest.raises(PoseIndexError, match="expected a condition, got none"):
        index.remove()
    assert PoseIndex.open(tmp_path / "i").count() == 55


def test_a_structure_over_many_entries_finds_nearly_all_and_those_added_since(tmp_path: Path) -> None:
    index, entries = PoseIndex.create(tmp_path / "i", IDENTITY), made(0, STRUCTURED_FROM)
    index.add(entries)
    assert not index.structured_count()
    assert index.update_structure() >= 2
    assert index.structured_count() == STRUCTURED_FROM
    late = made(STRUCTURED_FROM, 40, seed=5)
    index.add(late)
    index.remove(Filter(between=(0.0, 1.0)))
    resident = MemoryIndex.load(index)
    assert len(resident) == index.count() == STRUCTURED_FROM + 40 - 44
    condition = Filter(not_view=("2",))
    shares = []
    for query in (*entries.vector[100:110], *late.vector[:4]):
        exact = [hit.row for hit in index.search(query, 10, condition, exact=True)]
        assert [hit.row for hit in resident.search(query, 10, condition, exact=True)] == exact
        for searched in (index, resident):
            found = [hit.row for hit in searched.search(query, 10, condition, probes=8)]
            shares.append(len(set(found) & set(exact)) / 10)
    assert np.mean(shares) > 0.9
    assert resident.search(late.vector[0], 1)[0].row == STRUCTURED_FROM
    few = [len(resident.search(entries.vector[500], 5000, probes=p)) for p in (1, 4)]
    assert few[0] < few[1] < len(resident), "fewer partitions hold fewer entries"


def test_an_index_in_memory_takes_up_what_changed(tmp_path: Path) -> None:
    index = PoseIndex.create(tmp_path / "i", IDENTITY)
    index.add(made(0, 40))
    resident = MemoryIndex.load(index)
    assert resident.refreshed() is resident
    PoseIndex.open(tmp_path / "i").add(made(40, 4))
    assert len(resident) == 40
    assert len(resident.refreshed()) == 44


READER = """
import sys
from pathlib import Path
import numpy as np
from mcss.search.index import PoseIndex

index = PoseIndex.open(sys.argv[1])
counts = set()
while not Path(sys.argv[2]).exists():
    found = index.search(np.eye(8, dtype=np.float32)[0], 2000)
    tags = {hit.sequence for hit in found}
    assert len(tags) == 1, f"a mixture of versions: {tags}"
    counts.add((len(found), tags.pop()))
    if len(counts) == 1:
        Path(sys.argv[3]).touch()
print(len(index.search(np.eye(8, dtype=np.float32)[0], 2000)), len(counts))
"""


def test_a_reader_sees_every_change_wholly_or_not_at_all(tmp_path: Path) -> None:
    index = PoseIndex.create(tmp_path / "i", IDENTITY)

    def tagged(number: int, count: int) -> Entries:
        entries = made(0, count, seed=number)
        return Entries(**{**vars(entries), "sequence": [f"version {number}"] * count})

    index.add(tagged(0, 300))
    end, begun = tmp_path / "end", tmp_path / "begun"
    command = [sys.executable, "-W", "error", "-c", READER, str(tmp_path / "i"), str(end), str(begun)]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not begun.exists() and reader.poll() is None:
        os.sched_yield()
    for number in range(1, 9):
        index.add(tagged(number, 300))  # replaces all rows at once
    index.remove(Filter(view=("1",)))
    end.touch()
    out, errors = reader.communicate(timeout=120)
    assert reader.returncode == 0, errors[-1500:]
    assert int(out.split()[0]) == 225
    assert int(out.split()[1]) >= 2, "the reader saw changes while they were made"


def test_a_missing_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PoseIndexError, match=r"no index at .*; create one with `mcss index CAPTURE -o "):
        PoseIndex.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(PoseIndexError, match="no index at"):
        PoseIndex.open(tmp_path / "empty")
    lancedb.connect(tmp_path / "other").create_table("books", pa.table({"title": ["a"]}))
    with pytest.raises(PoseIndexError, match=r"a LanceDB database but not an index of mcss \(its tables are books\)"):
        PoseIndex.open(tmp_path / "other")
    with pytest.raises(PoseIndexError, match="not an index of mcss"):
        PoseIndex.create(tmp_path / "other", IDENTITY)
    lancedb.connect(tmp_path / "alike").create_table("poses", pa.table({"vector": [[1.0]]}))
    with pytest.raises(PoseIndexError, match="its table poses was not written by mcss"):
        PoseIndex.open(tmp_path / "alike")


def test_an_index_of_a_newer_mcss_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("mcss.search.index_table.INDEX_VERSION", 2)
        patch.setattr("mcss.search.index.INDEX_VERSION", 2)
        PoseIndex.create(tmp_path / "i", IDENTITY)
    with pytest.raises(PoseIndexError, match="has version 2, this mcss reads up to 1: update mcss"):
        PoseIndex.open(tmp_path / "i")


def test_embeddings_of_another_model_are_refused(tmp_path: Path) -> None:
    index = PoseIndex.create(tmp_path / "i", IDENTITY)
    with pytest.raises(PoseIndexError, match="holds embeddings of 8 numbers, runs/two gives 16: use the run"):
        PoseIndex.create(tmp_path / "i", ModelIdentity("abc", 16, "runs/two"))
    with pytest.raises(PoseIndexError, match=r"other weights \(abc\) than those of runs/two \(abd\)"):
        PoseIndex.create(tmp_path / "i", ModelIdentity("abd", 8, "runs/two"))
    with pytest.raises(PoseIndexError, match="holds embeddings of 8 numbers, got 9"):
        index.add(made(0, 3, dim=9))
    with pytest.raises(PoseIndexError, match="holds embeddings of 8 numbers, the query has 9"):
        index.search(np.zeros(9, np.float32))
    with pytest.raises(PoseIndexError, match="the query's embedding is not finite"):
        index.search(np.full(8, np.nan, np.float32))
    broken = made(5, 3)
    broken.vector[1, 2] = np.nan
    with pytest.raises(PoseIndexError, match="the embedding of row 6 is not finite"):
        index.add(broken)
    assert index.count() == 0


def test_an_empty_index_unknown_names_and_impossible_settings_are_errors(tmp_path: Path) -> None:
    index = PoseIndex.create(tmp_path / "i", IDENTITY)
    query = made(0, 1).vector[0]
    with pytest.raises(PoseIndexError, match="is empty; fill it with `mcss index"):
        index.search(query)
    index.add(made(0, 40))
    for searched in (index, MemoryIndex.load(index)):
        with pytest.raises(
            PoseIndexError, match=r"subject: there is no .S'9. in the index at .*; there are S0, S1, S2"
        ):
            searched.search(query, 3, Filter(subject=("S'9",)))
        assert searched.search(query, 3, Filter(between=(80.0, 90.0))) == []
    with pytest.raises(PoseIndexError, match="top: expected 1 or more, got 0"):
        index.search(query, 0)
    with pytest.raises(ValueError, match="between: expected two times in s, the earlier first, got 3 2"):
        Filter(between=(3.0, 2.0))


def test_a_missing_faiss_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = PoseIndex.create(tmp_path / "i", IDENTITY)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"FAISS: install it with `pip install 'mcss\[search\]'`"):
        MemoryIndex.load(index)


def test_a_missing_lancedb_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(ImportError, match=r"pip install 'mcss\[search\]'"):
        PoseIndex.create(tmp_path / "i", IDENTITY)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(small_run(tmp_path_factory.mktemp("run")))


def test_a_capture_is_remembered_wherever_the_index_is_asked_from(
    tiny_capture: Capture, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(tiny_capture.uri).parent)
    index_capture(Capture.open(Path(tiny_capture.uri).name), model, str(tmp_path / "i"))
    assert PoseIndex.open(tmp_path / "i").captures() == {tiny_capture.fingerprint: tiny_capture.uri}


def test_a_capture_becomes_an_index_and_goes_on_after_a_stop(
    tiny_capture: Capture, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instants = tiny_capture.instants()
    calls = []

    class Stop(Exception):
        pass

    def stopping(*args: object) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise Stop
        add(*args)

    add = PoseIndex.add
    with monkeypatch.context() as patch:
        patch.setattr(PoseIndex, "add", stopping)
        with pytest.raises(Stop):
            index_capture(tiny_capture, model, str(tmp_path / "i"), share=128)
    done = index_capture(tiny_capture, model, str(tmp_path / "i"))
    assert (done.added, done.kept, done.partitions) == (len(tiny_capture) - 256, 256, 0)
    again = index_capture(tiny_capture, model, str(tmp_path / "i"))
    assert (again.added, again.kept) == (0, len(tiny_capture))
    index = PoseIndex.open(tmp_path / "i")
    assert index.captures() == {tiny_capture.fingerprint: tiny_capture.uri}
    assert index.model == identity_of(model)
    row = int(instants.rows[30, 2])
    own = index.search(model.embed(tiny_capture.decode(np.array([row]), 32))[0], 1)[0]
    assert (own.row, own.view, own.frame) == (row, instants.views[2], instants.frame[30])
    assert own.distance < 1e-4
    predicted, true = index.pose(own, "predicted"), index.pose(own, "true")
    assert predicted is not None
    assert true is not None
    np.testing.assert_allclose(predicted, model.predict(tiny_capture.decode(np.array([row]), 32)).pose[0], atol=1e-2)
    np.testing.assert_allclose(true[4, 1], 0, atol=1e-3)  # canonical: the left hip is at +X
    shutil.rmtree(tmp_path / "i")


def test_a_capture_that_was_written_anew_is_indexed_anew(model: Model, tmp_path: Path) -> None:
    uri, place = str(tmp_path / "i"), tmp_path / "capture"

    def written(parts: list[list[Frame]]) -> Capture:
        shutil.rmtree(place, ignore_errors=True)
        writer = CaptureWriter.open(place, info=INFO)
        for part in parts:
            writer.append(part)
        return writer.finish()

    def shown() -> bool:
        """Return whether the entry of every tenth row has the embedding of the image that it names."""
        index, instants = PoseIndex.open(uri), capture.instants()
        hits = [Hit(**line, distance=0.0) for line in index.table(IMAGE_COLUMNS).to_pylist()][::10]
        rows = [instants.rows[instants.position(hit.subject, hit.sequence, hit.frame, hit.view)] for hit in hits]
        assert rows == [hit.row for hit in hits]
        expected = model.embed(capture.decode(np.array(rows), 32))
        return bool(np.allclose([index.vector(hit) for hit in hits], expected, atol=1e-4))

    parts = [stick_part(0, 0), stick_part(1, 1)]
    capture = written(parts)
    first = capture.fingerprint
    index_capture(capture, model, uri)
    assert shown()
    capture = written(parts[::-1])
    assert capture.fingerprint == first
    done = index_capture(capture, model, uri)
    assert (done.added, done.kept, done.removed) == (192, 0, 192)
    assert shown()
    capture = written(parts[:1])
    done = index_capture(capture, model, uri)
    assert (done.added, done.kept, done.removed) == (96, 0, 192)
    assert PoseIndex.open(uri).captures() == {capture.fingerprint: str(place)}
    assert shown()
    again = index_capture(capture, model, uri)
    assert (again.added, again.kept, again.removed) == (0, 96, 0)
