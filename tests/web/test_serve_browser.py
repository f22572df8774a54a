"""The page of `mcss serve` in a real Chromium, if there is one: Debian's (`apt install chromium`) or playwright's."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from filming import Room, write_video
from test_uploads import empty_png

from captures_for_tests import photo
from mcss.data.capture import Capture
from runs_for_tests import equipped_run
from server_for_tests import Served, served

pytestmark = pytest.mark.slow

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"

SETTLED = """async () => {
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  await Promise.allSettled(document.getAnimations().map(one => one.finished));
}"""
"""Waits until colours no longer fade into each other."""

ODD = "<img src=x onerror=alert(1)> ‮ü %2f..;'\"&.mp4"


@pytest.fixture(scope="module")
def server(tiny_capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run = equipped_run(tmp_path_factory.mktemp("run"))
    place = tmp_path_factory.mktemp("server") / "tmp"
    with served(place, "--run", str(run), "--capture", tiny_capture.uri, "--upload-mb", "1") as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome") or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium here: `apt install chromium`, or `playwright install chromium`")
        flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        found = playwright.chromium.launch(executable_path=path, args=flags)
        yield found
        found.close()


@pytest.fixture(params=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, server: Served) -> Iterator[Any]:
    """The page at the width of a desktop or a phone; it must log no errors and send no requests to other hosts."""
    width, height = (1280, 900) if request.param == "desktop" else (390, 844)
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=request.param == "phone")
    found = context.new_page()
    found.set_default_timeout(90_000)
    complaints: list[str] = []
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("dialog", lambda dialog: complaints.append(dialog.message))
    asked: list[str] = []
    found.on("request", lambda one: asked.append(one.url))
    found.goto(server.address)
    found.locator("body[data-ready]").wait_for()
    yield found
    assert complaints == []
    assert not [url for url in asked if not url.startswith((server.address, "blob:", "data:"))]
    assert found.evaluate("document.documentElement.scrollWidth") <= width, "wider than the window"
    context.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "photo.jpg"), photo(300, 400))
    return tmp_path / "photo.jpg"


def coloured(page: Any, canvas: str) -> int:
    """Count the pixels of a canvas that are not empty."""
    return int(
        page.evaluate(
            "id => { const c = document.getElementById(id), d = c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data; let n = 0;"
            "for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n }",
            canvas,
        )
    )


def test_an_image_is_analysed_and_the_search_continues_from_it(page: Any, image: Path) -> None:
    page.set_input_files("#file", image)
    page.locator("#grid .hit").first.wait_for()
    assert coloured(page, "skeleton") > 2000
    assert coloured(page, "seen") > 20_000
    assert page.locator("#certainty .figure-big").inner_text().startswith("±")
    hits = page.locator("#grid .hit")
    assert 3 <= hits.count() <= 12
    assert hits.first.locator(".views img").count() == 3
    page.select_option("#filter-subject", "S2")
    page.locator("#grid:not(.stale)").wait_for()
    page.locator("#grid .hit >> text=S2").first.wait_for()
    assert {text.split(" · ")[0] for text in page.locator("#grid .hit b").all_inner_texts()} == {"S2"}
    hits.first.locator("> button").click()
    page.locator("#trail li").nth(1).wait_for()
    assert "S2" in page.locator("#trail [aria-current]").inner_text()
    assert page.locator("#facts").inner_text().startswith("Person\nS2")
    page.select_option("#filter-subject", "!")
    page.locator("#grid:not(.stale)").wait_for()
    assert "S2" not in " ".join(page.locator("#grid .hit b").all_inner_texts())
    page.locator("#facts .views button").first.click()
    page.locator("#trail li").nth(2).wait_for()
    page.locator("#trail button").first.click()
    page.locator("#trail li").nth(1).wait_for(state="detached")


def test_the_skeleton_turns_by_itself_and_by_hand(page: Any, image: Path) -> None:
    page.set_input_files("#file", image)
    page.locator("#grid .hit").first.wait_for()
    page.locator("#front").click()
    assert page.locator("#turn").get_attribute("aria-pressed") == "false"
    shot = "() => document.getElementById('skeleton').toDataURL()"
    front = page.evaluate(shot)
    page.focus("#skeleton")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(shot) != front
    page.locator("#front").click()
    assert page.evaluate(shot) == front
    page.locator("#turn").click()
    page.evaluate(  # ends when the image has changed
        "front => new Promise(done => { const look = () => document.getElementById('skeleton').toDataURL() === front"
        " ? requestAnimationFrame(look) : done(); look(); })",
        front,
    )


def test_a_box_is_drawn_around_the_person(page: Any, image: Path) -> None:
    page.set_input_files("#file", image)
    page.locator("#grid .hit").first.wait_for()
    page.locator("#notes li >> text=draw a box").wait_for()
    area = page.locator("#seen").bounding_box()
    page.mouse.move(area["x"] + area["width"] * 0.3, area["y"] + area["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.6, area["y"] + area["height"] * 0.7, steps=4)
    with page.expect_request(lambda request: "&box=" in request.url) as asked:
        page.mouse.up()
    box = [float(part) for part in asked.value.url.split("box=")[1].replace("%2C", ",").split(",")]
    # The image is three quarters as high as wide, and centred in the square canvas.
    assert box == pytest.approx([0.3, (0.3 - 0.125) / 0.75, 0.3, 0.4 / 0.75], abs=0.02)
    page.locator("#notes li").wait_for(state="detached")


def test_unusable_files_are_reported_in_words(page: Any, tmp_path: Path, image: Path) -> None:
    def told(name: str, data: bytes) -> str:
        (tmp_path / name).write_bytes(data)
        page.set_input_files("#file", tmp_path / name)
        page.locator("#alert:visible").wait_for()
        page.locator("#busy").wait_for(state="hidden")
        return str(page.locator("#alert").inner_text())

    assert "This is not a file that can be read here" in told("song.mp3", b"ID3" + bytes(100))
    page.evaluate("document.getElementById('alert').hidden = true")
    assert "more than 50 million" in told("bomb.png", empty_png(20000, 20000))
    page.evaluate("document.getElementById('alert').hidden = true")
    assert told("large.mp4", bytes(2_000_000)) == "This file has 2 MB; the limit is 1 MB. Make it smaller or shorter."
    page.set_input_files("#file", image)
    page.locator("#grid .hit").first.wait_for()
    assert page.locator("#alert").is_hidden()


def test_two_videos_with_odd_names_are_compared(page: Any, tmp_path: Path) -> None:
    for number, name in enumerate((ODD.replace("/", ""), "b.webm")):
        room = Room(width=160, height=120, count=30 + 8 * number)
        path = write_video(
            tmp_path / f"{number}.{'mp4' if not number else 'webm'}", room.images(), codec=("h264", "libvpx")[number]
        )
        path.rename(tmp_path / name)
    page.locator("#tab-compare").click()
    page.set_input_files("#file-a", tmp_path / ODD.replace("/", ""))
    page.set_input_files("#file-b", tmp_path / "b.webm")
    page.locator("#worst .bar-row").first.wait_for()
    assert page.locator("#slot-a .slot-text").inner_text().startswith("<img src=x")
    assert page.locator("#worst .bar-row").count() == 5
    assert coloured(page, "both") > 1000
    page.locator("#compare-time").fill("5")
    assert "mm apart" in page.locator("#compare-text").inner_text()
    page.locator("#compare-play").click()
    page.locator("#compare-play >> text=▶").wait_for()
    assert page.locator("#compare-time").input_value() == page.locator("#compare-time").get_attribute("max")


def test_a_video_plays_with_its_skeleton(page: Any, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Room(width=160, height=120, count=30).images(), codec="h264")
    page.set_input_files("#file", path)
    page.locator("#player:visible").wait_for()
    assert page.locator("#time").get_attribute("max") == "14"
    page.locator("#time").fill("7")
    assert page.locator("#time-text").inner_text() == "0.56 s"
    page.locator("#play").click()
    page.locator("#play >> text=▶").wait_for()
    assert page.locator("#time").input_value() == "14"


def test_a_movement_is_searched_for_in_a_video_and_around_an_image(page: Any, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Room(width=160, height=120, count=40).images(), codec="h264")
    page.set_input_files("#file", path)
    page.locator("#grid .hit").first.wait_for()
    page.locator("#by-movement").click()
    page.locator("#grid.movements .film").first.wait_for()
    assert page.locator("#grid .film").first.locator("img").count() == 5
    assert (page.locator("#since").input_value(), page.locator("#until").input_value()) == ("0.0", "1.6")
    page.locator("#until").fill("0.2")
    page.locator("#until").blur()
    page.locator("#alert:visible").wait_for()
    assert page.locator("#alert").inner_text().startswith("There are too few images in this time for a movement")
    page.locator("#until").fill("1.2")
    page.locator("#until").blur()
    page.locator("#alert").wait_for(state="hidden")
    page.locator("#grid .hit > button").first.click()
    page.locator("#trail li").nth(1).wait_for()
    page.locator("#grid:not(.movements) .hit").first.wait_for()
    page.locator("#by-movement").click()
    page.locator("#grid.movements .film").first.wait_for()
    assert page.locator("#span").is_hidden()


def test_a_video_can_be_given_up_while_it_is_analysed(page: Any, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", Room(width=160, height=120, count=60).images(), codec="h264")
    page.set_input_files("#file", path)
    page.locator("#busy:visible progress").wait_for()
    page.locator("#cancel").click()
    page.locator("#busy").wait_for(state="hidden")
    assert page.locator("#alert").is_hidden()
    assert page.locator("#result").is_hidden()


def test_reload_keeps_a_comparison(page: Any, tmp_path: Path) -> None:
    page.locator("#tab-compare").click()
    for which, count in (("a", 30), ("b", 38)):
        path = write_video(tmp_path / f"{which}.mp4", Room(width=160, height=120, count=count).images(), codec="h264")
        page.set_input_files(f"#file-{which}", path)
    page.locator("#worst .bar-row").first.wait_for()
    page.reload()
    page.locator("#worst .bar-row").first.wait_for()
    assert page.locator("#compare").is_visible()
    page.go_back()
    page.locator("#analyse").wait_for(state="visible")


def test_the_camera_takes_an_image_and_a_video(page: Any) -> None:
    page.locator("#camera").click()
    page.locator("#camera-image:not([disabled])").click()
    page.locator("#grid .hit").first.wait_for()
    assert page.locator("#seen-title").inner_text() == "Image"
    page.locator("#camera").click()
    page.locator("#camera-close").click()
    assert page.locator("#camera-dialog").is_hidden()


def test_back_and_reload_keep_the_result(page: Any, image: Path) -> None:
    page.set_input_files("#file", image)
    page.locator("#grid .hit").first.wait_for()
    uploaded = page.url
    assert "#result-" in uploaded
    page.locator("#grid .hit > button").first.click()
    page.locator("#trail li").nth(1).wait_for()
    steps = page.locator("#trail li").all_inner_texts()
    page.reload()
    page.locator("body[data-ready]").wait_for()
    page.locator("#trail li").nth(1).wait_for()
    assert page.locator("#trail li").all_inner_texts() == steps
    page.go_back()
    page.locator("#trail li").nth(1).wait_for(state="detached")
    assert page.url == uploaded
    page.locator("#grid .hit").first.wait_for()
    page.go_back()
    page.locator("#result").wait_for(state="hidden")
    page.locator("#samples-strip button").first.wait_for()


def test_poses_are_saved_as_files(page: Any, image: Path) -> None:
    page.set_input_files("#file", image)
    page.locator("#grid .hit").first.wait_for()
    with page.expect_download() as saved:
        page.locator("#downloads a >> text=BVH").click()
    assert saved.value.suggested_filename == "poses.bvh"
    assert Path(saved.value.path()).read_text().startswith("HIERARCHY")


def test_another_person_is_offered_only_where_the_query_has_a_name(page: Any, image: Path) -> None:
    page.set_input_files("#file", image)
    page.locator("#grid .hit").first.wait_for()
    another = page.locator("#filter-subject option[value='!']")
    assert another.is_disabled()
    page.locator("#grid .hit > button").first.click()
    page.locator("#trail li").nth(1).wait_for()
    assert another.is_enabled()
    page.select_option("#filter-subject", "!")
    page.locator("#trail button").first.click()
    page.locator("#trail li").nth(1).wait_for(state="detached")
    assert page.locator("#filter-subject").input_value() == ""


def test_searches_that_overtake_each_other_raise_no_alarm(page: Any, image: Path) -> None:
    page.set_input_files("#file", image)
    page.locator("#grid .hit").first.wait_for()
    page.evaluate(
        "() => { const one = document.getElementById('filter-view');"
        "for (let i = 0; i < 40; i++) { one.selectedIndex = i % 2 ? 0 : 2; one.dispatchEvent(new Event('change')); } }"
    )
    page.locator("#grid:not(.stale)").wait_for()
    assert page.locator("#alert").is_hidden()


def test_arrow_keys_change_between_tabs(page: Any) -> None:
    page.locator("#tab-analyse").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#compare").is_visible()
    assert page.evaluate("document.activeElement.id") == "tab-compare"
    assert page.locator("#tab-analyse").get_attribute("tabindex") == "-1"
    page.keyboard.press("Home")
    assert page.locator("#analyse").is_visible()


def test_axe_finds_no_violations(page: Any, image: Path, tmp_path: Path) -> None:
    if not AXE.exists():
        pytest.skip("no axe-core here: `npm install --no-save axe-core` in the root of the repository")
    script = AXE.read_text(encoding="utf-8")

    def violations() -> list[str]:
        lines = []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_function(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
            page.evaluate(SETTLED)
            page.evaluate(script)
            found = page.evaluate("async () => (await axe.run()).violations")
            lines += [f"{scheme}, {one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]]
        return lines

    start = page.url
    assert violations() == [], "the start"
    page.set_input_files("#file", image)
    page.locator("#grid .hit").first.wait_for()
    assert violations() == [], "an image"
    page.locator("#grid .hit > button").first.click()
    page.locator("#trail li").nth(1).wait_for()
    page.locator("#grid:not(.stale)").wait_for()
    assert violations() == [], "an image of the gallery"
    video = write_video(tmp_path / "a.mp4", Room(width=160, height=120, count=40).images(), codec="h264")
    page.goto("about:blank")
    page.goto(start)
    page.locator("body[data-ready]").wait_for()
    page.set_input_files("#file", video)
    page.locator("#grid .hit").first.wait_for()
    page.locator("#by-movement").click()
    page.locator("#grid.movements .film").first.wait_for()
    page.locator("#until").fill("0.2")
    page.locator("#until").blur()
    page.locator("#alert:visible").wait_for()
    assert violations() == [], "a movement, and a message"
    page.locator("#tab-compare").click()
    assert violations() == [], "two videos to choose"
    for which in "ab":
        page.set_input_files(f"#file-{which}", video)
    page.locator("#worst .bar-row").first.wait_for()
    assert violations() == [], "two videos compared"
