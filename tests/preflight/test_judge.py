"""What `preflight` says of a program: which probes run, in which order, and how the report stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fitdoctor import catalogue
from fitdoctor.errors import ConfigError, RuleError
from fitdoctor.preflight import judge
from fitdoctor.preflight.batches import Batch, apply, joined, tensors
from fitdoctor.preflight.evidence import finding, seen, some
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.report import Report, from_json, to_json
from fitdoctor.reporters import html, markdown
from fitdoctor.rule import SECTIONS, sections
from hypothesis import given
from hypothesis import strategies as st
from tests.preflight.programs import PROBES, Program, loader, mlp, vectors
from torch import nn

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", PROBES)
def test_the_manual_of_a_probe_is_complete(name: str) -> None:
    parts = sections(PROBES[name].manual)
    assert set(parts) == {"", *SECTIONS}
    assert all(parts.values())
    assert len(PROBES[name].summary) < 121


def test_what_probes_explain_exists_and_has_no_cycle() -> None:
    for p in PROBES.values():
        todo, seen_names = list(p.explains), set()
        while todo:
            name = todo.pop()
            assert name != p.name
            if name not in seen_names:
                seen_names.add(name)
                todo += PROBES[name].explains


def test_probes_have_their_codes_in_their_files() -> None:
    for p in PROBES.values():
        assert p.check.__module__.rpartition(".")[2] == f"{p.code.lower()}_{p.name.replace('-', '_')}"


def test_a_probe_with_a_wrong_code_or_name_is_refused() -> None:
    for code, name in (("PR001", "fine"), ("XYZ001", "fine"), ("PRE001", "Not Fine")):
        with pytest.raises(RuleError, match="expected"):
            probe(code, name, cost=Cost(), since="0.2.0")
    assert str(Cost(3, 2_000)) == "at most 3 passes of a batch and 2,000 examples read"
    assert str(Cost()) == "nothing"


def test_the_report_of_a_sound_program_is_healthy_and_survives_json() -> None:
    report = Program(mlp()).check()
    assert report.verdict == "healthy"
    assert len(report.outcomes) == len(PROBES)
    assert report.source == "preflight"
    assert Report.from_dict(from_json(to_json([report]))[0].to_dict()).to_dict() == report.to_dict()
    assert report.run == "Sequential"


def test_reports_are_shown_by_every_reporter() -> None:
    x, y = vectors()
    report = Program(mlp(), train_loader=loader(200 * x, y)).check("unnormalised-inputs", "wrong-initial-loss")
    assert report.verdict == "sick"
    assert "unnormalised-inputs" in markdown.render([report])
    assert "unnormalised-inputs" in "".join(html.stream([report]))


def test_probes_are_selected_and_ignored_by_name_or_code() -> None:
    program = Program(mlp())
    assert [o.rule for o in program.check("PRE001", "wrong-loss-input").outcomes] == [
        "program-fails",
        "wrong-loss-input",
    ]
    report = program.check("PRE001", "PRE003", ignore={"pre003": "known", "overfitting": "a rule, not a probe"})
    assert [o.rule for o in report.outcomes] == ["program-fails"]
    assert report.ignored == {"wrong-loss-input": "known"}
    with pytest.raises(ConfigError, match="did you mean 'program-fails'"):
        program.check("program-fail")
    with pytest.raises(ConfigError, match="selects rules"):
        program.check("overfitting")


def test_options_reach_the_probe_and_are_checked() -> None:
    x, y = vectors(400)
    program = Program(mlp(), train_loader=loader(x[:380], y[:380]), val_loader=loader(x[380:], y[380:]))
    program.finds("small-validation-set", severity="note", options={"small-validation-set": {"points": 0.06}})
    program.sound("small-validation-set", options={"PRE018": {"points": 0.5}, "overfitting": {"anything": 1}})
    with pytest.raises(ConfigError, match="has no option 'point'"):
        program.check("PRE018", options={"PRE018": {"point": 0.5}})
    with pytest.raises(ConfigError, match="expected float, got 'much'"):
        program.check("PRE018", options={"PRE018": {"points": "much"}})


def test_progress_is_told() -> None:
    told: list[Any] = []
    Program(mlp()).check("PRE001", "PRE003", progress=lambda *given: told.append(given))
    assert told == [(0, 2, "program-fails"), (1, 2, "wrong-loss-input")]


def test_a_probe_that_crashes_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    @probe("PRE900", "crashes", cost=Cost(), since="0.2.0")
    def crashes(bench: Any) -> Any:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(judge.catalogue, "probes", lambda: (crashes, PROBES["program-fails"]))
    first, second = Program(mlp()).check().outcomes
    assert (first.status, first.why) == ("crashed", "ZeroDivisionError: on purpose")
    assert second.status == "clean"


# --- the budget -----------------------------------------------------------------------------------------


def test_a_tiny_budget_leaves_the_dear_probes_out_and_says_so() -> None:
    report = Program(mlp()).check(budget=1e-9)
    skipped = [o for o in report.outcomes if o.status == "skipped"]
    assert all("budget" in o.why or "given" in o.why for o in skipped)
    assert len(skipped) > 15
    assert report.verdict == "cannot judge"


def test_a_large_budget_leaves_nothing_out() -> None:
    free = {o.rule: o.status for o in Program(mlp()).check("PRE001", "PRE003", "PRE012").outcomes}
    assert {o.rule: o.status for o in Program(mlp()).check("PRE001", "PRE003", "PRE012", budget=600).outcomes} == free


def test_the_most_informative_probes_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge._Pace, "seconds", lambda self, p: 1e-6 * p.cost.passes)
    told: list[str] = []
    Program(mlp()).check(budget=300, progress=lambda done, total, name: told.append(name))
    worth = [PROBES[name].worth for name in told]
    assert worth == sorted(worth, reverse=True)
    first = [PROBES[name].cost.passes for name in told if PROBES[name].worth == 3]
    assert first == sorted(first)


def test_a_long_probe_stops_when_the_time_is_over() -> None:
    program = Program(mlp())
    bench = judge.Bench(program.model, program.criterion, program.optimizer, {"train": program.train_loader})
    bench.deadline = 0.0
    with pytest.raises(judge.CannotJudge, match="the budget ended after 0 of 5 steps"):
        bench.fit(bench.batches(32), 5)


# --- batches --------------------------------------------------------------------------------------------

NESTS = st.recursive(
    st.builds(lambda n: torch.arange(4 * n).reshape(4, n), st.integers(1, 3)),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.sampled_from("abxy"), inner, min_size=1),
    max_leaves=6,
)


@given(NESTS, st.booleans())
def test_any_nest_of_tensors_is_a_batch(raw: Any, with_criterion: bool) -> None:
    batch = Batch.of(raw, with_criterion=with_criterion)
    assert len(batch) in (0, 4)
    assert len(tensors(batch.mapped(torch.clone).raw)) == len(tensors(raw))
    if len(batch) == 4:
        part = batch.rows([0, 2])
        assert all(len(t) == 2 for t in tensors(part.inputs))
        whole = joined([part, batch.rows([1, 3])])
        assert whole is not None
        assert len(whole) == 4


def test_batches_are_parted_into_inputs_and_target() -> None:
    a, b, c = torch.zeros(2, 3), torch.ones(2, 1), torch.arange(2)
    assert Batch.of((a, b, c), with_criterion=True).inputs == (a, b)
    assert Batch.of({"x": a, "labels": c}, with_criterion=True).inputs == {"x": a}
    assert set(Batch.of({"x": a, "labels": c}, with_criterion=False).inputs) == {"x", "labels"}
    assert Batch.of(a, with_criterion=True).target is a
    changed = Batch.of((a, c), with_criterion=True).with_target(c + 1)
    assert changed.raw[1].tolist() == [1, 2]
    blank = Batch.of({"x": a + 1, "labels": c}, with_criterion=False).with_inputs(lambda t: t * 0)
    assert float(blank.inputs["x"].sum()) == 0
    assert blank.inputs["labels"] is c
    assert (
        joined([Batch.of((a, c), with_criterion=True), Batch.of((torch.zeros(2, 4), c), with_criterion=True)]) is None
    )
    assert apply((1, a), lambda t: t + 1)[0] == 1


@pytest.mark.parametrize("as_mapping", [False, True])
def test_some_rows_of_a_batch_can_be_blanked_and_relabelled(as_mapping: bool) -> None:
    a, c = torch.ones(4, 3), torch.arange(4)
    part = Batch.of({"x": a, "labels": c} if as_mapping else (a, c), with_criterion=True).rows(slice(0, 2))
    blank = part.with_inputs(torch.zeros_like)
    assert [t.sum().item() for t in tensors(blank.raw)] == [0, 1]
    relabelled = part.with_target(c[2:])
    assert [t.sum().item() for t in tensors(relabelled.raw)] == [6, 5]


def test_an_input_that_is_its_own_target_is_changed_without_it() -> None:
    batch = Batch.of([torch.ones(4, 3)], with_criterion=True)
    assert batch.own_target
    blank = batch.rows(slice(0, 2)).with_inputs(torch.zeros_like)
    assert float(blank.inputs[0].sum()) == 0
    assert float(blank.target.sum()) == 6
    other = batch.with_target(torch.zeros(4, 3))
    assert float(other.inputs[0].sum()) == 12
    assert not Batch.of((torch.ones(2, 3), torch.ones(2)), with_criterion=True).own_target


def test_findings_fit_a_line() -> None:
    made = finding("word " * 30, judge_severity(), judge_confidence(), seen("loss", "1"))
    assert len(made.message) <= 100
    assert some(list("abcde")) == "a, b, c and 2 more"


def judge_severity() -> Any:
    from fitdoctor.finding import Severity

    return Severity.NOTE


def judge_confidence() -> Any:
    from fitdoctor.finding import Confidence

    return Confidence.LOW


# --- documents ------------------------------------------------------------------------------------------


def test_the_program_of_the_documentation_runs() -> None:
    text = (DOCS / "preflight.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    programs = [block for block in blocks if block.startswith("import")]  # the others are lines of one
    assert programs
    for block in programs:
        done = subprocess.run([sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "healthy" in done.stdout
        assert "learning rate" in done.stdout


def test_every_probe_is_in_the_documentation() -> None:
    text = (DOCS / "preflight.md").read_text("utf-8")
    assert [p.code for p in catalogue.probes() if f"| {p.code} | [{p.name}](rules.md" not in text] == []


def test_reloading_the_probes_imports_no_torch() -> None:
    code = "import sys; from fitdoctor import catalogue; catalogue.probes(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_model_without_parameters_is_told() -> None:
    class Nothing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :3]

    other = mlp()
    report = Program(Nothing(), optimizer=torch.optim.SGD(other.parameters(), 0.1)).check()
    assert report.verdict == "sick"
    assert [o.why for o in report.outcomes if o.status == "crashed"] == []
