"""`fitdoctor rule`, and the docs that are made by it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fitdoctor import catalogue, manual
from fitdoctor.cli import options
from fitdoctor.cli.rule import RuleName

DOCS = Path(__file__).parents[2] / "docs"


def test_the_list_names_every_rule(run):
    text = run("rule").stdout
    for rule in catalogue.entries():
        assert f"{rule.code}  {rule.name}" in text
    assert f"{len(catalogue.entries())} rules." in text


@pytest.mark.parametrize("name", ["LRN001", "lr-too-high", "lrn001"])
def test_one_rule_by_code_or_name(run, name: str):
    text = run("rule", name).stdout
    assert text.startswith("lr-too-high  LRN001, learning rate")
    for title in ("Needs", "Why it matters", "How it is measured", "Options", "When it is wrong", "What to do"):
        assert f"\n{title}\n" in text
    for option, default in catalogue.find(name).options.items():
        assert f"{option} = {default!r}" in text


def test_a_misspelt_rule_names_the_nearest(run):
    result = run("rule", "lr-to-high")
    assert result.exit_code == 2
    assert "did you mean 'lr-too-high'?" in result.stderr


def test_json_holds_options_with_their_meaning(run):
    (rule,) = json.loads(run("rule", "overfitting", "--format", "json").stdout)
    assert rule["code"] == "FIT001"
    assert rule["needs"]
    for name, default in catalogue.find("overfitting").options.items():
        assert rule["options"][name]["default"] == default
        assert rule["options"][name]["doc"]
    assert len(json.loads(run("rule", "--format", "json").stdout)) == len(catalogue.entries())


def test_every_option_of_every_rule_is_explained():
    missing = [f"{r.name}: {o}" for r in catalogue.entries() for o, text in manual.option_texts(r).items() if not text]
    assert missing == []


def test_the_docs_are_fresh():
    made = manual.as_markdown(catalogue.entries())
    assert (DOCS / "rules.md").read_text("utf-8") == made, "run: fitdoctor rule --format markdown > docs/rules.md"


def test_links_within_the_docs_lead_somewhere():
    text = (DOCS / "rules.md").read_text("utf-8")
    anchors = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_the_command_line_page_names_every_option_and_command(run):
    text = (DOCS / "cli.md").read_text("utf-8")
    from fitdoctor.cli import main

    for name, command in main.commands.items():
        assert f"fitdoctor {name}" in text
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in text, f"{name} {parameter.opts[0]}"


def test_the_shell_completes_names():
    completed = RuleName().shell_complete(None, None, "lr-too")
    assert {"lr-too-high", "lr-too-low"} <= {item.value for item in completed}


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10), ("0.5", 0.5), ("1e-3", 1e-3), ("true", True), ("False", False), ("SGD", "SGD")]
)
def test_facts_are_read_as_what_they_are(text: str, value: object):
    read = options.fact(text)
    assert read == value
    assert type(read) is type(value)
