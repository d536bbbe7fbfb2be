"""The page about a folder of runs: what it says, that nothing in it runs or loads, and how a browser shows it."""

import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from recorded import record_run, seeds
from runs import error_of

from attempt.report_html import report_html

pytestmark = pytest.mark.filterwarnings("error")  # of a picture that has no room, say
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)<'


class Reader(HTMLParser):
    """The tags of a page with their attributes, its text, and the cells of its tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.rows, self.cell = "", [[""]], False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cell:
            self.rows[-1][-1] += data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds of two methods, a series' summary, hostile names, and runs that cannot be read."""
    folder = tmp_path / "runs"
    seeds(folder)
    score = {"task": "mrpc", "split": "test", "metric": "f1", "mean": 81.25, "deviation": 1.5, "values": [80.0, 82.5]}
    means = [{**score, "task": "mean", "split": split, "metric": "first metrics"} for split in ("dev", "test")]
    (folder / "a/summary.json").write_text(json.dumps({"seeds": [1, 2], "scores": [score, *means]}))
    (folder / "p/summary.json").write_text('{"seeds": [1], "scores": [{"mean": NaN, "values": [], "deviation": null}]}')
    shares = {HOSTILE: 0.25, "<style>*{display:none}": 0.5, "target": 0.25}
    record_run(folder / HOSTILE, {5: 66}, task=HOSTILE, weights={5: shares}, model=f"m{HOSTILE}")
    broken = {"no-json/config.json": "{", "no-config/result.json": "{}"}
    for name, text in broken.items():
        (folder / name).parent.mkdir()
        (folder / name).write_text(text)
    record_run(folder / "bad-result", {5: 1})
    (folder / "bad-result/result.json").write_text('{"scores": [], "mean": {"dev": "<i>", "test": 1}}')
    record_run(folder / "bad-metrics", {5: 1})
    (folder / "bad-metrics/metrics.jsonl").write_text('{"step": 5, "loss": 1, "scores": [{"split": "dev"}]}\n')
    return folder


def test_the_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_run(folder / "low/seed-1", {5: 40, 10: 45}, lr=0.1, test=44)
    assert report_html.main([str(folder)]) == 0
    assert str(folder / "report.html") in capsys.readouterr().out
    found = Reader(folder / "report.html")
    by_name = {row[0]: row for row in found.rows if row}
    runs = {row[0]: row for row in found.rows if len(row) == 12}
    assert runs["a/seed-2"][1:10] == ["mrpc", "ATTEMPT", "t5-base", "2", "10", "10", "84.00", "77.00", "0.50"]
    assert runs["p/seed-2"][5:8] == ["-", "5 of 80", "-"]  # not complete
    series = next(row for row in found.rows if row[1:4] == ["mrpc", "test", "f1"])
    assert series == ["a", "mrpc", "test", "f1", "81.25 ± 1.50", "1 2", "80.00 82.50"]
    results = [row for row in found.rows if row and "74.00 ± 4.24 (2)" in row]
    assert results[0][0].startswith("ATTEMPT, ") and "lr 0.3" in results[0][0]
    assert "--lr" in next(row for row in found.rows if row[:2] == ["runs", "tasks"])
    assert by_name["no-json"][1].startswith(f"{folder}/no-json/config.json: expected the config.json of a run")
    for name in ("no-config", "bad-result", "bad-metrics", "p/summary.json"):
        assert "expected" in by_name[name][1]
    assert "6 runs, 5 of them complete; not readable: 5" in found.text


def test_nothing_of_a_stranger_is_markup(folder: Path) -> None:
    assert report_html.main([str(folder)]) == 0
    found = Reader(folder / "report.html")
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "img", "iframe", "object", "embed", "form", "base", "i"}
    assert [tag for tag, _ in found.tags].count("style") == 1
    for _, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,"))
    assert found.text.count(HOSTILE) > 5  # as text: in tables, pictures and their figures
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    policy = next(a["content"] for t, a in found.tags if t == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "//" not in found.text.replace("http://", "")  # no address anywhere


def test_pictures_are_in_the_page_and_follow_its_colours(folder: Path) -> None:
    assert report_html.main([str(folder), "--to", str(folder / "other.html")]) == 0
    text = (folder / "other.html").read_text()
    pictures = [attributes for tag, attributes in Reader(folder / "other.html").tags if tag == "svg"]
    titles = [attributes["aria-label"] or "" for attributes in pictures]
    assert "mrpc: learning curves, dev (400 examples)" in titles
    assert any(title.startswith("mrpc: weights of the prompts on dev (400 examples); ATTEMPT") for title in titles)
    assert any(title.startswith("Results on test") for title in titles) and len(titles) == 6
    assert "fill: var(--ink)" in text and "stroke: var(--c0)" in text and "stroke: #0072b2" not in text


def test_without_matplotlib_pictures_are_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert report_html.main([str(folder)]) == 0
    assert "pip install -c constraints.txt -e '.[plots]'" in capsys.readouterr().err
    found = Reader(folder / "report.html")
    assert "svg" not in {tag for tag, _ in found.tags} and "0.700  ██████" in found.text
    assert found.text.count(HOSTILE) > 5


def test_prompts_of_one_shape_are_compared(prompt_run: Path, attempt_flags: list[str], tmp_path: Path) -> None:
    for i, source in enumerate((prompt_run, prompt_run, prompt_run)):
        target = tmp_path / f"run-{i}"
        target.mkdir()
        for name in ("config.json", "result.json", "metrics.jsonl", "best.safetensors"):
            (target / name).write_bytes((source / name).read_bytes())
    (tmp_path / "run-3").mkdir()
    for name in ("config.json", "result.json", "metrics.jsonl"):
        (tmp_path / "run-3" / name).write_bytes((prompt_run / name).read_bytes())
    (tmp_path / "run-3/best.safetensors").write_bytes(b"no prompt")
    assert report_html.main([str(tmp_path)]) == 0
    found = Reader(tmp_path / "report.html")
    titles = [attributes["aria-label"] for tag, attributes in found.tags if tag == "svg"]
    assert "Cosine similarity of the prompts' mean tokens; 3 prompts" in titles
    assert any(row[:1] == ["run-3/best.safetensors"] for row in found.rows)


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_html.main([str(tmp_path)]) == 2
    assert f"{tmp_path}: expected runs of train.py (folders with a config.json), found none" in error_of(capsys)


LEGIBLE = """(() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const ratio = c => (Math.max(light(c), paper) + 0.05) / (Math.min(light(c), paper) + 0.05);
  const texts = [...document.querySelectorAll('h1, p, th, pre, summary, svg text')]
    .filter(e => !/^-?[\\d.]+$/.test(e.textContent));  // numbers stand in cells of a colour of their own
  return Math.min(...texts.map(e => ratio(getComputedStyle(e)[e.closest('svg') ? 'fill' : 'color'])));
})()"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: the page is not shown by a browser")
def test_a_browser_shows_it(folder: Path, tmp_path: Path) -> None:
    assert report_html.main([str(folder)]) == 0
    page = folder / "report.html"
    with Browser(tmp_path / "profile") as browser:
        for width in (360, 1280):
            for dark in (False, True):
                browser.open(page, width, dark=dark)
                assert browser.value("innerWidth") == width
                assert browser.value("document.documentElement.scrollWidth") <= width  # nothing sticks out
                paper = browser.value("getComputedStyle(document.body).backgroundColor")
                assert paper == ("rgb(21, 24, 28)" if dark else "rgb(255, 255, 255)")
                assert browser.value(LEGIBLE) >= 4.5  # WCAG 2.2, 1.4.3: contrast of text
                boxes = "[...document.querySelectorAll('.box')].filter(e => e.scrollWidth > e.clientWidth).length"
                assert (browser.value(boxes) > 0) or width > 360  # wide tables scroll by themselves on a phone
        assert browser.value("document.querySelectorAll('svg').length") == 6
        browser.call(
            "Emulation.setEmulatedMedia", media="print"
        )  # on paper it is dark on light, whatever the screen is
        assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.value(LEGIBLE) >= 4.5
        assert browser.complaints == []
        assert set(browser.requests) == {page.resolve().as_uri()}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_the_browser_would_tell(tmp_path: Path) -> None:
    """The test above can fail: a page that complains, loads something and is too wide is seen to do so."""
    page = tmp_path / "bad.html"
    page.write_text('<p style="width: 2000px">x</p><script>console.error("no")</script><img src="missing.png">')
    with Browser(tmp_path / "profile") as browser:
        browser.open(page, 1280)
        assert browser.value("document.documentElement.scrollWidth") > 1280
        assert len(browser.complaints) >= 2 and len(set(browser.requests)) == 2


def test_above_a_dozen_settings_each_has_a_small_picture(tmp_path: Path) -> None:
    """One picture of all of them would be unreadable, and as wide as they are many."""
    from attempt.report_html.report_html import MOST  # noqa: PLC0415

    for i in range(MOST + 1):
        record_run(tmp_path / f"r{i}", {5: 40 + i, 10: 50 + i}, lr=0.01 * (i + 1), method="prompt")
        if i >= MOST - 1:
            assert report_html.main([str(tmp_path), "--to", str(tmp_path / f"{i}.html")]) == 0
    few, many = Reader(tmp_path / f"{MOST - 1}.html"), Reader(tmp_path / f"{MOST}.html")
    assert not [a for t, a in few.tags if t == "svg" and a.get("class") == "small"]
    assert [a for t, a in few.tags if t == "svg"]
    pictures = [a for t, a in many.tags if t == "svg"]
    assert len(pictures) == MOST + 1 and {a["class"] for a in pictures} == {"small"}
    assert {a["aria-label"] for a in pictures} == {f"{40 + i}.00 to {50 + i}.00" for i in range(MOST + 1)}
    row = next(row for row in many.rows if row[:1] == ["prompt tuning, lr 0.03"] and len(row) == 5)
    assert row[1:] == ["1", "52.00", "", "10"]
    assert "accuracy (%), from 40.00 to 62.00." in many.text
