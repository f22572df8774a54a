"""Captures and indexes at addresses of an object store, on a server that speaks S3's protocol."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_assembly import INFO, parts

from captures_for_tests import stick_parts
from mcss.cli import main
from mcss.data.capture import Capture
from mcss.data.writer import CaptureWriter
from mcss.errors import CaptureError
from mcss.models.model_file import MODEL, save_model
from mcss.search.index import PoseIndex
from mcss.sources.assembly import assemble
from runs_for_tests import small_network

server = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The address of a bucket on a server of its own."""
    import boto3

    started = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT", address)
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket="poses")
        yield "s3://poses"
    started.stop()


def test_an_import_into_an_object_store_goes_on_where_it_stopped_and_is_the_same_capture(
    store: str, tmp_path: Path
) -> None:
    first = assemble(parts(S1_Walking="file"), f"{store}/drawn", INFO, processes=1)
    assert len(first.problems) == 1
    rest = assemble(parts(), f"{store}/drawn", INFO, processes=1)
    assert rest.imported == ("S1/Walking",)
    own = assemble(parts(), tmp_path / "own", INFO, processes=1)
    assert rest.capture.fingerprint == own.capture.fingerprint
    opened = Capture.open(f"{store}/drawn/frames.lance")
    assert sorted(opened.images(np.arange(len(opened)))) == sorted(own.capture.images(np.arange(len(opened))))
    with pytest.raises(CaptureError, match=r"no capture at s3://poses/nothing: expected the table s3://poses/nothing/"):
        Capture.open(f"{store}/nothing")


def test_two_writers_in_an_object_store_leave_every_part_once(store: str) -> None:
    one, other = (CaptureWriter.open(f"{store}/both", info=INFO) for _ in range(2))
    drawn = {part.sequence: list(part.frames(lambda text: None)) for part in parts() if part.subject == "S1"}
    one.append(drawn["Sitting"])
    with pytest.raises(CaptureError, match="another process added S1/Sitting to the capture at s3://poses/both"):
        other.append(drawn["Sitting"])
    other.append(drawn["Walking"])
    one.append(drawn["Waving"])
    assert len(one.finish()) == sum(map(len, drawn.values()))


def test_index_search_and_evaluate_read_and_write_in_an_object_store(
    store: str, tiny_capture: Capture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = CaptureWriter.open(f"{store}/people", info=tiny_capture.info)

    for part in stick_parts():
        writer.append(part)
    assert writer.finish().fingerprint == tiny_capture.fingerprint
    run, found = tmp_path / "run", tmp_path / "found.json"
    save_model(run / MODEL, small_network(), {"config": json.dumps({"method_name": "mcss", "labels": "S1", "seed": 0})})
    main(["index", f"{store}/people", "-o", f"{store}/index", "--run", str(run)])
    main(["index", f"{store}/people", "-o", f"{store}/index", "--run", str(run)])
    words = " ".join(capsys.readouterr().out.split())
    assert f"0 images added, {len(tiny_capture)} present before: s3://poses/index now holds" in words
    main(["search", "row:5", "--index", f"{store}/index", "--run", str(run), "--json", str(found)])
    assert json.loads(found.read_text())["hits"]
    index = PoseIndex.open(f"{store}/index")
    assert index.captures() == {tiny_capture.fingerprint: f"{store}/people"}
    results = [tmp_path / "near.json", tmp_path / "far.json"]
    for address, result in zip((tiny_capture.uri, f"{store}/people"), results, strict=True):
        main(["evaluate", str(run), "--capture", address, "--out", str(tmp_path / "report"), "--json", str(result)])
    near, far = (json.loads(result.read_text()) for result in results)
    assert near == far
