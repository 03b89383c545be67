"""Text from logs must be shown as text, in every format: it may steer neither screen nor parser."""

from __future__ import annotations

import io
import json
import re
from xml.etree import ElementTree

import pytest
from fitdoctor.report import Report
from fitdoctor.reporters import github, harmless, junit, markdown, sarif
from fitdoctor.reporters import json as json_reporter
from fitdoctor.reporters.terminal_table import show_all
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ANYTHING = st.text(alphabet=st.characters())  # half surrogate pairs included


def on_terminal(*reports: Report, encoding: str = "utf-8", colours: bool = False) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    show_all(reports, Console(file=file, width=80, force_terminal=colours), verbose=True)
    file.flush()
    return file.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_terminal_gets_no_control_codes(hostile: Report, encoding: str):
    for text in (on_terminal(hostile, encoding=encoding), on_terminal(hostile, hostile, encoding=encoding)):
        assert not CONTROL.search(text)
        assert "[red]y[/red]" in text, "rich markup is text"


def test_a_coloured_terminal_gets_our_colours_only(hostile: Report):
    codes = set(re.findall("\x1b[^m]*m", on_terminal(hostile, hostile, colours=True)))
    assert codes, "the test would prove nothing without colours"
    assert all(re.fullmatch(r"\x1b\[[\d;]*m", code) for code in codes)
    assert not CONTROL.search(re.sub(r"\x1b\[[\d;]*m", "", on_terminal(hostile, hostile, colours=True)))


def test_no_line_is_a_command_to_a_github_runner(hostile: Report):
    for text in (on_terminal(hostile), on_terminal(hostile, hostile), markdown.render([hostile])):
        assert not [line for line in text.splitlines() if line.lstrip().startswith("::") or "##[" in line]


def test_github_writes_one_command_a_diagnosis(hostile: Report):
    lines = github.render([hostile]).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["::error", "fitdoctor:"]
    assert lines[0].count("::") >= 2
    properties = lines[0].partition(" ")[2].partition("::")[0]
    assert dict(p.split("=", 1) for p in properties.split(","))["title"] == "fitdoctor%3A lr-too-high"


def test_markdown_becomes_no_markup_of_theirs(hostile: Report, sick: Report):
    for reports in ([hostile], [hostile, sick]):
        html = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown.render(reports))
        assert set(re.findall(r"<(\w+)", html)) <= {
            "h3", "p", "strong", "ul", "ol", "li", "code", "pre", "details", "summary", "br",
            "table", "thead", "tbody", "tr", "th", "td",
        }  # fmt: skip
        assert html.count("<details>") == html.count("</details>")
        assert "<em>" not in html
        prose = re.sub(r"(?s)<code.*?</code>", "", html)
        assert not re.search(r"@\w|https?://\w|www\.\w", prose), "a mention or a link that GitHub brings to life"


def test_every_row_of_the_markdown_table_has_its_cells(hostile: Report, sick: Report):
    html = MarkdownIt("commonmark").enable("table").render(markdown.render([hostile, sick]))
    assert html.count("<td") == 2 * 6


def test_junit_is_xml_that_says_the_same(hostile: Report):
    root = ElementTree.fromstring(junit.render([hostile]).encode("utf-8"))
    failure = root.find(".//failure")
    assert failure is not None
    assert "<script>alert(1)</script>" in failure.attrib["message"]
    assert not CONTROL.search("".join(root.itertext()).replace("\n", ""))


def test_sarif_links_to_nothing(hostile: Report):
    document = json.loads(sarif.render([hostile]))
    message = document["runs"][0]["results"][0]["message"]["text"]
    assert not re.search(r"(?<!\\)[\[\]]", message)
    uri = document["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert re.fullmatch(r"[A-Za-z0-9%/._~-]+", uri)


def test_json_is_json_of_the_text_as_it_is(hostile: Report):
    text = json_reporter.render([hostile])
    assert json.loads(text.encode("utf-8"))["reports"][0]["run"] == hostile.run.replace("\udcff", "?")


@given(ANYTHING)
def test_one_line_is_one_encodable_line_without_control(text: str):
    line = harmless.one_line(text)
    assert not CONTROL.search(line)
    assert line == " ".join(line.split())
    assert len(line.splitlines()) <= 1
    line.encode("utf-8")


@given(ANYTHING, st.integers(2, 30))
def test_a_cut_line_keeps_its_limit(text: str, most: int):
    assert len(harmless.one_line(text, most)) <= most


@given(st.text(), st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8", "cp437"]))
def test_spelled_text_is_encodable(text: str, encoding: str):
    harmless.spelled(harmless.one_line(text), encoding).encode(encoding)


@given(ANYTHING)
def test_markdown_shows_literally_what_it_is_given(text: str):
    inline = MarkdownIt("commonmark").parseInline(markdown.literal(text))[0].children or []
    assert {t.type for t in inline} <= {"text", "text_special"}
    shown = "".join(t.content for t in inline).replace("\u200b", "")
    assert shown == harmless.one_line(text).replace("\u200b", "")


@given(ANYTHING)
def test_a_code_span_shows_literally_what_it_is_given(text: str):
    inline = MarkdownIt("commonmark").parseInline(markdown.code(text))[0].children or []
    assert [t.type for t in inline] == ["code_inline"]
    assert inline[0].content.strip() == harmless.one_line(text)
