"""The page of `pgolf report` in a real browser: nothing fetched, no error, nothing cut off, usable by keyboard."""

import io
from pathlib import Path

import numpy as np
import pytest

from codec.storage.token_shards import shard_bytes
from pgolf.__main__ import main
from tests.browser import browser, find_browser
from tests.packager.conftest import checkpoint, data  # noqa: F401
from tests.verify.records import write_1176, write_1716

AXE = Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"
WIDTHS = (1280, 390)
# Elements that stick out of the window, but for those in a box that scrolls, and those that only a reader's ear gets.
CUT = """[...document.querySelectorAll('main *, header *')].filter(each => {
  const box = each.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 1 || box.left < -1)
    && !each.closest('.table, .scrolls, pre, .hidden, .skip');
}).map(each => each.outerHTML.slice(0, 120))"""
# Lines of text in a picture that lie on each other, or outside of it.
OVERLAPS = """[...document.querySelectorAll('.picture > svg')].filter(svg => svg.getBoundingClientRect().width)
.flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].map(each => [each.textContent, each.getBoundingClientRect()]);
  const bad = texts.filter(([, box]) => box.left < frame.left - 3 || box.right > frame.right + 3)
    .map(([text]) => `outside: ${text}`);
  texts.forEach(([one, a], place) => texts.slice(place + 1).forEach(([two, b]) => {
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 2 && down > 4) bad.push(`${one} / ${two}`);
  }));
  return bad;
})"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program():
    found = find_browser()
    if not found:
        pytest.skip("no Chromium is installed")
    return found


@pytest.fixture(scope="module")
def pages(checkpoint, data, tmp_path_factory):  # noqa: F811
    """One page of a submission with all that can be known of it, one of two records side by side."""
    folder = tmp_path_factory.mktemp("pages")
    (data / "tiny_train_000000.bin").write_bytes(shard_bytes(np.arange(3000) % 300))
    known = ["--checkpoint", str(checkpoint), "--hessians", str(folder / "cal.safetensors"), "--data", str(data)]
    submission, output = folder / "packed", folder / "submission.html"
    for arguments in (
        ["calibrate", str(checkpoint), "--data", str(data), "-o", str(folder / "cal.safetensors")],
        ["pack", str(checkpoint), "--recipe", "pr162-small", "-o", str(submission)],
        ["report", str(submission), *known, "--measure-loss", "3", "-o", str(output)],
    ):
        assert main(arguments) == 0
    write_1716(folder / "1716")
    write_1176(folder / "1176")
    runs = folder / "runs.html"
    assert main(["report", str(folder / "1716"), str(folder / "1176"), "--against", "1493", "-o", str(runs)]) == 0
    return {"submission": output, "runs": runs}


@pytest.fixture(params=["submission", "runs"])
def path(request, pages):
    return pages[request.param]


def pixels(shot):
    """uint8 (rows, columns, 3)."""
    from matplotlib.image import imread

    return (imread(io.BytesIO(shot), format="png")[..., :3] * 255).astype(np.uint8)


@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_whole_in_light_and_dark(program, path, width):
    with browser(program) as page:
        seen = {}
        for dark in (False, True):
            page.open(path, width, dark=dark)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate(CUT) == []
            assert page.evaluate(OVERLAPS) == []
            seen[dark] = pixels(page.screenshot())
            assert seen[dark].shape[1] == width
        assert page.requests == [path.resolve().as_uri()] * 2
        assert page.problems == []
    corners = {dark: shot[0, 0].astype(int).mean() for dark, shot in seen.items()}
    assert corners[False] > 240
    assert corners[True] < 40
    for shot in seen.values():
        empty = (shot == shot[0, 0]).all(-1).all(1)  # rows of pixels with nothing on them
        assert 0.1 < empty.mean() < 0.7
        assert len(np.unique(shot.reshape(-1, 3)[::7], axis=0)) > 50


@pytest.mark.parametrize("width", WIDTHS)
def test_every_picture_is_drawn_in_its_colours(program, pages, width):
    """The treemap of the window's width shows levels, scales and code; the other one is not there."""
    with browser(program) as page:
        page.open(pages["submission"], width, dark=False)
        shown = page.evaluate(
            "[...document.querySelectorAll('.picture')]"
            ".map(each => [each.className, each.getBoundingClientRect().height])"
        )
        kind = "wide" if width > 640 else "narrow"
        assert all((height > 20) == (kind in name.split()) for name, height in shown)
        box = page.evaluate(
            f"(() => {{ const box = document.querySelector('#bytes-0 .{kind} svg').getBoundingClientRect();"
            "return [box.left, box.top + scrollY, box.right, box.bottom + scrollY] })()"
        )
        left, top, right, bottom = (int(each) for each in box)
        colours = {tuple(each) for each in pixels(page.screenshot())[top:bottom, left:right].reshape(-1, 3).tolist()}
        for name in ("levels", "scales", "code"):
            wanted = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')")
            assert tuple(bytes.fromhex(wanted.strip().removeprefix("#"))) in colours


def test_it_is_used_by_keyboard(program, pages):
    with browser(program) as page:
        page.open(pages["submission"], 1280, dark=False)
        page.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
        assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
        page.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.press("Tab")
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
        page.press("Enter")
        assert page.evaluate("document.activeElement.parentElement.open") is True
        page.press("Tab")
        assert page.evaluate("document.activeElement.className") == "table"
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.evaluate("document.getElementById('theme').focus()")
        page.press("Enter")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        assert page.evaluate("document.getElementById('theme').textContent") == "Light"


@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_serious(program, path, width):
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm install --no-save axe-core")
    with browser(program) as page:
        for dark in (False, True):
            page.open(path, width, dark=dark)
            page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
            page.evaluate(f"{AXE.read_text(encoding='utf-8')}; 0")
            found = page.evaluate(
                "axe.run(document).then(found => found.violations.map(each => "
                "[each.id, each.impact, each.nodes.map(node => node.html.slice(0, 120))]))"
            )
            assert [each for each in found if each[1] in ("serious", "critical")] == []
