"""The board is what tables and submissions give, and does in a browser what it promises."""

import dataclasses
import html.parser
import shutil
import subprocess
import sys

import pytest
from helpers import BENCHMARKS, benchmark

from reinforcegen_envs.evaluation.submission import SubmissionError, read_all
from reinforcegen_envs.tasks import TASKS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1440,900",
)  # fmt: skip
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium; apt-get install chromium brings one")


@pytest.fixture(scope="module")
def write_board():
    """The script, as a module."""
    return benchmark("write_board")


def test_submissions_and_board_are_fresh(write_board):
    own, tables = (sys.modules[name] for name in ("own_submissions", "write_results"))
    assert set(own.METHODS) == set(tables.METHODS)
    old = write_board.stale(write_board.wanted())
    assert old == [], f"run {write_board.WRITE}"


def test_stale_files_are_found_written_and_removed(write_board, tmp_path, monkeypatch):
    folder = tmp_path / "submissions"
    shutil.copytree(write_board.FOLDER, folder)
    for name in ("write_board", "own_submissions"):
        monkeypatch.setattr(sys.modules[name], "FOLDER", folder)
    monkeypatch.setattr(write_board, "PAGE", tmp_path / "board.html")
    own = folder / "imitation-residual-td3-threading-d2-state.json"
    kept = own.read_text()
    own.write_text(kept.replace('"demonstrations": 1500', '"demonstrations": 15'))
    gone = folder / "knitting-threading-d2-state.json"
    gone.write_text(kept.replace('"Imitation + residual TD3"', '"Knitting"'))
    other = folder / "sewing-threading-d2-state.json"
    other.write_text(gone.read_text().replace('"Knitting"', '"Sewing"').replace(write_board.AUTHORS, "Others <b>"))
    with pytest.raises(write_board.StaleBoard, match=r"knitting-threading-d2-state\.json, board\.html; run python"):
        write_board.main(write_board.Args(check=True))
    write_board.main(write_board.Args())
    write_board.main(write_board.Args(check=True))
    assert own.read_text() == kept and not gone.exists()  # what a reproduction noted is kept
    page = write_board.PAGE.read_text()
    assert ">Sewing<" in page and "Others &lt;b&gt;" in page and "Knitting" not in page
    other.write_text("{}")
    with pytest.raises(SubmissionError, match="sewing-threading-d2-state.json is not a submission"):
        write_board.main(write_board.Args(check=True))


def test_published_figures_are_reported_without_an_interval():
    published = [s for s in read_all(BENCHMARKS / "submissions").values() if s.run is None]
    assert len(published) == 26 and {s.status for s in published} == {"reported"}
    assert all("not the same setting" in s.facts.note and s.facts.link for s in published)


def test_a_table_whose_counts_changed_loses_its_reproduction(write_board):
    own = sys.modules["own_submissions"]
    (cell,) = [c for c in own.evaluations() if (c.path.name == "evaluate_threading_d2_tuned-0.csv")]
    made = own.own(cell, None)
    assert made.run is not None and made.run.mujoco
    before = dataclasses.replace(made, reproduction=made.run, reproduced_by="Somebody")
    assert own.own(cell, before) == before
    cell.lines[0]["success"] = "False"
    after = own.own(cell, before)
    assert after.run is not None and after.status == "reported"
    assert after.run.strict_successes == made.run.strict_successes - 1


# --- the page ---


class Page(html.parser.HTMLParser):
    """What a page holds: rows as {column: value}, attributes of heads, and the addresses that it names."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.heads, self.links, self.forms, self.tags = [], {}, [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]
        if tag == "th":
            self.heads[attributes["data-key"]] = attributes
        if tag == "tr":
            self.rows.append({"hidden": "hidden" in attributes})
        if tag == "td":
            self.rows[-1][attributes["data-key"]] = attributes["data-value"]
        if tag == "form":
            self.forms.append(attributes)

    @property
    def shown(self):
        """Rows of the body that are seen, in order."""
        return [row for row in self.rows[1:] if not row["hidden"]]


def page_text():
    return (BENCHMARKS.parent / "docs" / "board.html").read_text(encoding="utf-8")


def test_the_page_is_whole_without_scripts_and_without_the_network():
    page = Page(page_text())
    assert len(page.shown) == len(read_all(BENCHMARKS / "submissions")) and "hidden" in page.forms[0]
    assert all(len(row) == len(page.heads) + 1 for row in page.shown)
    assert page.tags.count("svg") == len(page.shown) + 1
    assert not {"link", "img", "iframe"} & set(page.tags) and page.tags.count("script") == 1
    assert set(page.links) == {"benchmark.md"} | {link for link in page.links if link.startswith("https://arxiv.org/")}
    tasks = [row["task"] for row in page.shown]
    assert list(dict.fromkeys(tasks)) == list(TASKS)


def dump(address, folder):
    """The page as a browser leaves it, at an address."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}", "--dump-dom", address]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return Page(run.stdout)


@pytest.fixture
def opened(tmp_path):
    """A function: the page in a browser with a fragment."""
    address = (BENCHMARKS.parent / "docs" / "board.html").as_uri()
    return lambda fragment="": dump(address + fragment, tmp_path / "browser")


@in_a_browser
def test_a_browser_shows_everything_at_first(opened):
    page = opened()
    assert page.shown == Page(page_text()).shown and "hidden" not in page.forms[0]
    assert not any("aria-sort" in head for head in page.heads.values())


@in_a_browser
def test_a_view_is_linked_to(opened):
    page = opened("#task=Threading&sort=success")
    assert {row["task"] for row in page.shown} == {"Threading"}
    rates = [row["success"] for row in page.shown]
    known = [float(rate) for rate in rates if rate]
    assert (
        len(known) >= 4
        and known == sorted(known, reverse=True)
        and rates[len(known) :] == [""] * (len(rates) - len(known))
    )
    assert page.heads["success"]["aria-sort"] == "descending" and "aria-sort" not in page.heads["task"]


@in_a_browser
def test_numbers_sort_as_numbers_and_what_is_unknown_comes_last(opened):
    page = opened("#sort=training&order=asc")
    steps = [row["training"] for row in page.shown]
    known = [int(step) for step in steps if step]
    assert known == sorted(known) and len({len(str(step)) for step in known}) > 2 and steps[len(known) :][0] == ""
    assert page.heads["training"]["aria-sort"] == "ascending"


@in_a_browser
def test_filters_and_search_go_together(opened):
    rows = opened("#variant=D2&observation=camera&status=reported&q=shipped+estimator").shown
    assert rows and {(row["variant"], row["observation"], row["status"]) for row in rows} == {
        ("D2", "camera", "reported")
    }
    assert {row["method"] for row in rows} == {"Imitation + residual TD3"}
    reproduced = [row for row in Page(page_text()).shown if row["status"] == "reproduced"]
    assert opened("#status=reproduced").shown == reproduced and opened("#q=knitting").shown == []
    assert len(opened("#task=Knitting&sort=colour").shown) == len(
        Page(page_text()).shown
    )  # no such choice, no such column
