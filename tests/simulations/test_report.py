"""The report is one file that needs nothing else, shows everything, and is inert whatever a device calls itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedpress.errors import DataError
from fedpress.server.spread import spread
from fedpress.simulations import units
from fedpress.simulations.records import ROUNDS_FILE, RoundRecord, read_rounds
from fedpress.simulations.report import client_rows, rates, write_report
from fedpress.simulations.results import Summary

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

MakeRun = Callable[..., Path]
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(2)'>",
    "$\\frac{1}{0}$",
    "{{ 7*7 }}",
    "a\x1b\u202eb",
)
PLOTS = ("accuracy-round", "accuracy-bytes", "loss", "bytes", "spread", "time")


class Page(HTMLParser):
    """Tags, attributes and ids of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_report_is_self_contained_and_inert(make_run: MakeRun) -> None:
    names = [*(f"client-{i:03d}" for i in range(5)), *HOSTILE]
    run = make_run("demo", names=names, count=4, plan='# </pre><script>alert(3)</script>\n[run]\nname = "demo"\n')
    html = write_report(run, make_run("base", names=names, count=4, ratio=(1, 1))).read_text(encoding="utf-8")
    page = Page(html)
    assert not {"script", "img", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "srcset", "action")]
    assert all(value.startswith("#") for name, value in page.attributes if name.endswith("href"))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", html))
    assert "@import" not in html
    assert "http:" not in html
    assert "https:" not in html
    text = "".join(page.text)
    for name in names:
        assert name.replace("\x1b", "?").replace("\u202e", "?") in text
    assert "\x1b" not in html
    assert "</pre><script>alert(3)</script>" in text  # the plan in full, as text


def test_drawings_share_a_page(make_run: MakeRun) -> None:
    html = write_report(make_run("demo", count=4)).read_text(encoding="utf-8")
    page = Page(html)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(PLOTS) <= set(ids)
    assert {value[1:] for name, value in page.attributes if name == "href"} <= set(ids)
    assert page.attributes.count(("role", "img")) == len(PLOTS)
    assert all(value for name, value in page.attributes if name == "aria-label")
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert "<text" in drawings  # text stays text
    assert not re.findall(
        r"#[0-9a-f]{6}\b", re.sub(r'(?:href|id)="[^"]*"|url\([^)]*\)', "", drawings)
    )  # only variables


def test_report_is_deterministic(make_run: MakeRun) -> None:
    run = make_run("demo", count=4)
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_headline_numbers(make_run: MakeRun) -> None:
    run, base = make_run("demo"), make_run("base", ratio=(1, 1), seed=3)
    text = "".join(Page(write_report(run, base).read_text(encoding="utf-8")).text)
    ours, theirs = Summary.read(run), Summary.read(base)
    assert ours.accuracy is not None
    assert theirs.accuracy is not None
    delta = f"{100 * (ours.accuracy - theirs.accuracy):+.1f} pts".replace("-", "\N{MINUS SIGN}")
    ratio = f"{ours.bytes_up_uncompressed / ours.bytes_up:.1f}x"
    for expected in (
        f"{100 * ours.accuracy:.1f} %",
        delta,
        ratio,
        f"{ours.bits_up:.2f} up",
        f"fedpress simulate {run}",
    ):
        assert expected in text


def test_run_with_little_to_show(make_run: MakeRun) -> None:
    run = make_run("demo", count=2)
    (run / ROUNDS_FILE).write_text(RoundRecord(0).to_json() + "\n")
    html = write_report(run).read_text(encoding="utf-8")
    assert "<svg" not in html
    (run / "plan.toml").unlink()
    with pytest.raises(DataError, match=r"plan\.toml"):
        write_report(run)


def test_late_updates_are_shown_and_two_of_a_client_in_a_round_are_two(make_run: MakeRun) -> None:
    run = make_run("demo", names=["a", "b"], count=2)
    assert "staleness" not in write_report(run).read_text(encoding="utf-8")
    records = read_rounds(run)
    late = replace(records[2], clients={**records[2].clients, "a": replace(records[2].clients["a"], staleness=(3, 0))})
    (run / ROUNDS_FILE).write_text("".join(r.to_json() + "\n" for r in (*records[:2], late)))
    assert "1.5, 3" in write_report(run).read_text(encoding="utf-8")
    a, b = client_rows(read_rounds(run), 50_890)
    assert (a.updates, a.staleness, b.updates, b.staleness) == (3, 1.5, 2, 0.0)


def test_late_updates_have_a_time_axis_and_a_drawing_of_their_own(make_run: MakeRun) -> None:
    run = make_run("demo", names=["a", "b"], count=4)
    records = read_rounds(run)
    late = replace(records[3].clients["a"], staleness=(4,))
    records[3] = replace(records[3], clients={**records[3].clients, "a": late})
    records[4] = replace(records[4], clients={"b": replace(records[4].clients["b"], staleness=(0, 1, 0))})
    (run / ROUNDS_FILE).write_text("".join(r.to_json() + "\n" for r in records))
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert {*PLOTS, "staleness", "accuracy-time"} <= {value for name, value in page.attributes if name == "id"}
    assert "50.0 % of 4 updates were of the newest version; mean 1.2, at most 4." in "".join(page.text)


def test_what_clients_alone_measured_is_said_to_be_theirs(make_run: MakeRun) -> None:
    run = make_run("demo", count=4)
    records = [replace(r, metrics={}) for r in read_rounds(run)]
    own = [replace(r, client_accuracy=spread([c.metrics["accuracy"] for c in r.clients.values()])) for r in records]
    (run / ROUNDS_FILE).write_text("".join(r.to_json() + "\n" for r in own))
    page = Page(write_report(run).read_text(encoding="utf-8"))
    drawn = [value for name, value in page.attributes if name == "id"]
    assert drawn.index("own") < drawn.index("accuracy-bytes")
    assert "accuracy-round" not in drawn
    text = "".join(page.text)
    assert "91.0 % accuracy on clients' own data with" in text
    assert "global model" not in text
    for record in own[1:]:
        assert record.client_accuracy is not None
        assert units.share(record.client_accuracy.worst_decile) in text
    few = [replace(r, client_accuracy=spread([0.5, 0.7]) if r.clients else None) for r in records]
    (run / ROUNDS_FILE).write_text("".join(r.to_json() + "\n" for r in few))
    ids = [value for name, value in Page(write_report(run).read_text(encoding="utf-8")).attributes if name == "id"]
    assert "own" not in ids, "two of ten clients are no tenth of them"
    assert "accuracy-round" in ids


def test_a_learning_rate_that_changes_is_in_the_table_of_rounds(make_run: MakeRun) -> None:
    plan = '[run]\nrounds = 3\n[train]\nlr = 0.4\nschedule = "step"\nlr_drop_every = 2\n'
    run = make_run("step", count=3, plan=plan)
    assert rates(run / "plan.toml", read_rounds(run)) == pytest.approx({1: 0.4, 2: 0.4, 3: 0.04})
    assert "learning rate" in write_report(run).read_text(encoding="utf-8")
    for other in ("[run]\nrounds = 3\n", "[gone]\nkey = 1\n"):
        (run / "plan.toml").write_text(other)
        assert "learning rate" not in write_report(run).read_text(encoding="utf-8")


def test_many_rounds_and_clients_stay_small(make_run: MakeRun) -> None:
    run = make_run("demo", names=[f"writer-{i}" for i in range(60)], count=150)
    report = write_report(run)
    assert report.stat().st_size < 500_000
    rows = client_rows(read_rounds(run), 50_890)
    assert [row.name for row in rows] == [f"writer-{i}" for i in range(60)]
    assert all(row.updates == 150 for row in rows)
    assert rows[0].bits_up == pytest.approx(32 / 54, rel=0.02)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_report_in_a_browser(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("demo", names=["client-000", *HOSTILE], count=4)
    report = write_report(run)
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", report.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    page = Page(done.stdout)
    ids = {value for name, value in page.attributes if name == "id"}
    assert {*PLOTS, "clients", "plan", "rounds"} <= ids
    assert "script" not in page.tags
    assert HOSTILE[0] in "".join(page.text)
