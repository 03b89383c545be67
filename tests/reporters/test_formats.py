"""The machine formats: JSON, SARIF, JUnit, GitHub commands and Markdown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from fitdoctor.report import Report, from_json
from fitdoctor.reporters import github, junit, markdown, sarif
from fitdoctor.reporters import json as json_reporter

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text("utf-8"))


class TestJson:
    def test_it_fits_the_schema(self, sick: Report, healthy: Report, blind: Report, hostile: Report):
        jsonschema.Draft202012Validator.check_schema(SCHEMA)
        for reports in ([], [sick], [sick, healthy, blind, hostile]):
            jsonschema.validate(json.loads(json_reporter.render(reports, fitdoctor="0.1.0")), SCHEMA)

    def test_the_schema_knows_every_key(self, sick: Report):
        """A key that is written but not described would be a contract that nobody can read."""

        def check(data: object, schema: dict) -> None:
            schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
            schema = next((s for s in schema.get("anyOf", []) if s.get("type") == "object"), schema)
            if isinstance(data, dict) and "properties" in schema:
                assert data.keys() == schema["properties"].keys()
                for key, value in data.items():
                    check(value, schema["properties"][key])
            elif isinstance(data, list):
                for item in data:
                    check(item, schema.get("items", {}))

        check(json.loads(json_reporter.render([sick])), SCHEMA)

    def test_the_schema_refuses_what_is_wrong(self, sick: Report):
        for path, wrong in ((("verdict",), "fine"), (("outcomes", 0, "status"), "maybe"), (("steps",), [1])):
            document = json.loads(json_reporter.render([sick]))
            place = document["reports"][0]
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = wrong
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(document, SCHEMA)

    def test_it_reads_back(self, sick: Report, healthy: Report, blind: Report):
        reports = [sick, healthy, blind]
        again = from_json(json_reporter.render(reports))
        assert [repr(r) for r in again] == [repr(r) for r in reports]  # repr, for nan is not equal to nan

    def test_pieces_come_with_their_reports(self, sick: Report, healthy: Report):
        taken = []

        def judged():
            for report in (sick, healthy):
                taken.append(report.run)
                yield report

        pieces = json_reporter.stream(judged())
        while "runs/lr1" not in next(pieces):
            pass
        assert taken == ["runs/lr1"]


class TestSarif:
    def test_essentials(self, sick: Report, blind: Report):
        document = json.loads(sarif.render([sick, blind], fitdoctor="0.1.0", manuals={"LRN001": "Too high.\n\nWhy: x"}))
        assert document["version"] == "2.1.0"
        (run,) = document["runs"]
        rules = run["tool"]["driver"]["rules"]
        assert len({r["id"] for r in rules}) == len(rules)
        lr = next(r for r in rules if r["id"] == "LRN001")
        assert lr["shortDescription"]["text"] == "Too high."
        assert "Why: x" in lr["help"]["text"]
        assert [(r["ruleId"], r["level"]) for r in run["results"]] == [
            ("FIT005", "note"),
            ("GRD001", "warning"),
            ("LRN001", "error"),
        ]
        for result in run["results"]:
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
            assert result["message"]["text"]
            location = result["locations"][0]["physicalLocation"]["artifactLocation"]
            assert location["uri"] == "logs/runs/lr1"
            assert result["partialFingerprints"]
        said = run["invocations"][0]["toolExecutionNotifications"]
        assert {n["level"] for n in said} == {"error", "note"}
        assert any("double-softmax crashed" in n["message"]["text"] for n in said)

    def test_absolute_paths_become_uris(self, sick: Report):
        document = json.loads(sarif.render([replace(sick, path="/a b/ü")]))
        location = document["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
        assert location["uri"] == "file:///a%20b/%C3%BC"


class TestJunit:
    def test_counts_and_cases(self, sick: Report):
        root = ElementTree.fromstring(junit.render([sick]))
        (suite,) = root
        assert {k: suite.attrib[k] for k in ("tests", "failures", "errors", "skipped")} == {
            "tests": "8",
            "failures": "1",
            "errors": "1",
            "skipped": "3",
        }
        skipped = suite.find("testcase[@name='ACT001 dead-relu']/skipped")
        assert skipped is not None
        assert skipped.attrib["message"] == "no activation_zero_fraction logged"
        assert suite.find("testcase[@name='GRD001 exploding-gradients']/system-out") is not None

    @pytest.mark.parametrize(("fail_on", "failures"), [("error", 1), ("warning", 2), ("note", 3), ("never", 0)])
    def test_fail_on(self, sick: Report, fail_on: str, failures: int):
        root = ElementTree.fromstring(junit.render([sick], fail_on=fail_on))
        assert len(root.findall(".//failure")) == failures


class TestGithub:
    def test_one_annotation_a_diagnosis(self, sick: Report, blind: Report):
        lines = github.render([sick, blind]).splitlines()
        assert lines[0].startswith(
            "::error title=fitdoctor%3A lr-too-high,file=logs/runs/lr1::runs/lr1: train loss rose"
        )
        assert "%0AWhat to do: lower the learning rate 10-fold%0A" in lines[0]
        assert lines[1].startswith("::notice title=fitdoctor%3A best-epoch")
        assert lines[2].startswith("::warning title=fitdoctor%3A runs/short cannot be judged")
        assert lines[3] == "fitdoctor: 2 runs, 1 sick, 0 healthy, 1 cannot be judged"

    def test_percent_signs_survive(self, sick: Report):
        text = github.render([replace(sick, run="50%")])
        assert "::50%25: train loss" in text


class TestMarkdown:
    def test_a_sick_run(self, sick: Report):
        text = markdown.render([sick])
        assert text.startswith("### ❌ `runs/lr1` is sick: train loss rose 260x above its best\n")
        assert "**lr-too-high**: train loss rose" in text
        assert "\n   ```python\n   optimizer = SGD(model.parameters(), lr=0.01)\n   ```\n" in text
        assert "- **exploding-gradients**: gradient norm rose 90x · since step 120 of 230 (epoch 2.0)" in text
        assert "`▁" in text

    def test_many_runs_have_a_table_the_sick_first(self, healthy: Report, blind: Report, sick: Report):
        lines = markdown.render([healthy, blind, sick]).splitlines()
        assert lines[0] == "### fitdoctor: 1 of 3 runs is sick"
        rows = [line for line in lines if line.startswith("| ") and "`runs/" in line]
        assert [row.split("`")[1] for row in rows] == ["runs/lr1", "runs/short", "runs/good"]

    def test_a_healthy_run_shows_its_curves(self, healthy: Report):
        assert "\n- `█▆▃▁` val loss: 2 to 0.5\n" in markdown.render([healthy])

    def test_it_fits_into_a_comment(self, sick: Report):
        """GitHub refuses a comment of more than 65,536 characters; nine tenths of one section are code here."""
        finding = sick.diagnoses[0].root
        long = replace(finding.remedies[0], code={"pytorch": "x = 1\n" * 2000})
        wordy = replace(sick.diagnoses[0], root=replace(finding, remedies=(long,)))
        text = markdown.render([replace(sick, run=f"r{i}", diagnoses=(wordy,)) for i in range(12)])
        assert len(text) < 65_536
        assert text.count("### ❌") == 3
        assert "9 more sick runs are not shown whole." in text

    def test_a_long_table_is_cut_and_says_so(self, sick: Report):
        text = markdown.render([replace(sick, run=f"r{i}") for i in range(80)])
        assert "30 more runs are left out of this table." in text
        assert "70 more sick runs are not shown whole." in text
        assert len(text) < 65_536


def test_what_does_not_suit_a_run_is_said_below_what_to_do(sick: Report) -> None:
    lead = sick.diagnoses[0]
    against = (
        "use a smaller model: the training loss itself is high",
        "clip <all> steps: it would cut 80% of the steps",
    )
    told = replace(sick, diagnoses=(replace(lead, root=replace(lead.root, ruled_out=against)), *sick.diagnoses[1:]))
    text = markdown.render([told])
    assert (
        "<details><summary>What does not suit this run: 2, and why</summary>\n\n"
        "- use a smaller model: the training loss itself is high\n"
        "- clip &lt;all&gt; steps: it would cut 80% of the steps\n\n</details>"
    ) in text
    assert text.index("What to do") < text.index("What does not suit")
    assert "does not suit" not in markdown.render([sick])
