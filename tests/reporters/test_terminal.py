"""The terminal report, as a person would read it."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from fitdoctor.report import Report
from fitdoctor.reporters import terminal
from fitdoctor.reporters.terminal_table import show_all
from rich.console import Console

SICK = """\
✗ runs/lr1 is sick: train loss rose 260x above its best
  steps 0 to 230 · lr constant 0.1 · SGD · tensorboard

✗ lr-too-high
  error · high confidence · since step 120 of 230 (epoch 2.0) · LRN001

           train loss (log scale)
      nan                                                           ×
       50 │                                  ⢰⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠉⠉⠉⠉⠉⠉⠉⠁    ⠈⠉⠉⠉⠉⠉⠉
          │                                  ⡇
          │                                 ⢸
          │⠒⠒⠤⠤⠤⣀⣀⡀                         ⡇
          │       ⠈⠉⠉⠑⠒⠒⠢⠤⠤⠤⠤⠤⣀⣀⣀          ⢰⠁
    0.172 │                      ⠉⠉⠉⠒⠒⠒⠤⠤⠤⣀⡎
          └────────────────────────────────▲─▲────────────────────────────────
           0                           best 110                            230
                                         onset 120
  seen      50 at the end
  expected  below 0.19, its best
  grad_norm ▁▁▁▁▁▁▁▁████████
  seen      90, 90x its median before

  It could also be: a corrupted batch
  To settle it: log the loss of every batch

  It explains
    ! exploding-gradients  gradient norm rose 90x, step 120 (epoch 2.0)

  What to do
  1. Lower the learning rate 10-fold
     why          every step overshoots
     unless       the loss was never below its start
     it worked if the loss keeps falling after step 120
     PyTorch
       optimizer = SGD(model.parameters(), lr=0.01)
     Lightning
       def configure_optimizers(self):
           return SGD(self.parameters(), lr=0.01)

  2. Warm up

  3. Clip the gradient norm

  also: use another seed (--verbose shows how)

Worth knowing
  · best-epoch  best epoch is 2 of 4, step 110 (epoch 1.8)

About the log
  - starts again at step 50: the later data are used
  - 1 tag not understood and left out: my/thing  (--map TAG=quantity)
  - switched off: on purpose (plateau)

Not judged
  - 2 skipped: no grad_norm_clipped logged (gradient-clipping-saturated,
    clipping-too-low)
  - 1 skipped: no activation_zero_fraction logged (dead-relu)

1 rule crashed
  - double-softmax (SET001): ZeroDivisionError: division by zero
  That is a bug in fitdoctor, not in your run: please report it with the log.

3 findings, 1 clean, 3 skipped (no grad_norm_clipped logged, and 1 other
reason), 1 crashed
"""


def shown(*reports: Report, width: int = 80, encoding: str = "utf-8", **options: object) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    show_all(iter(reports), Console(file=file, width=width), **options)
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def test_a_sick_run(sick: Report):
    assert shown(sick) == SICK


def test_a_healthy_run_shows_its_curves(healthy: Report):
    assert shown(healthy) == (
        "✓ runs/good looks healthy: 31 rules judged it and found nothing harmful\n"
        "  epochs 1 to 40 · csv\n"
        "\n"
        "  val loss  █▆▃▁  2 → 0.5\n"
        "\n"
        "0 findings, 31 clean, 0 skipped, 0 crashed\n"
    )


def test_a_run_that_cannot_be_judged_says_what_to_log(blind: Report):
    text = shown(blind)
    assert text.startswith("? runs/short cannot be judged: too little was logged\n")
    assert "What is missing\n  - no val loss logged (keeps out overfitting)\n  - 4 points of train loss" in text
    assert "1 skipped: no grad_norm logged (exploding-gradients)" in text
    assert "1 skipped: no val loss logged" not in text, "said already"


def test_quiet_leaves_verdict_and_count(sick: Report):
    assert len(shown(sick, quiet=True).splitlines()) == 4
    assert "What to do" not in shown(sick, quiet=True)


def test_verbose_shows_every_remedy_and_reason(sick: Report):
    text = shown(sick, verbose=True)
    assert "4. Use another seed" in text
    assert "also:" not in text


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
def test_lines_fit_the_width_but_for_code(sick: Report, width: int):
    code = ("optimizer =", "def configure", "return SGD")
    for line in shown(sick, width=width).splitlines():
        assert len(line) <= max(width, 30) or line.strip().startswith(code), line


def test_the_code_of_the_own_framework_is_enough(sick: Report):
    text = shown(replace(sick, facts={"framework": "lightning"}))
    assert "def configure_optimizers" in text
    assert "optimizer = SGD" not in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_other_encodings_get_other_characters(sick: Report, encoding: str):
    text = shown(replace(sick, run="naïve×2"), encoding=encoding)
    assert text.startswith({"ascii": "x na?vex2 is sick"}.get(encoding, "x naïve×2 is sick"))
    assert " |" in text  # the axis
    assert "*" in text  # the curve
    assert not set(text) & set("⣿│└▁█")


def test_without_a_terminal_there_are_no_control_codes(sick: Report, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert "\x1b" not in shown(sick)


def test_no_color_keeps_a_terminal_free_of_colour(sick: Report, monkeypatch: pytest.MonkeyPatch):
    file = io.StringIO()
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.show(sick, Console(file=file, force_terminal=True, width=80))
    assert "\x1b[31m" not in file.getvalue()
    assert "\x1b[1;31m" not in file.getvalue()


class TestTable:
    def test_many_runs_get_a_row_each_then_the_sick_ones(self, sick: Report, healthy: Report, blind: Report):
        text = shown(healthy, sick, blind)
        head = text.splitlines()[:4]
        assert head[1].split() == ["✓", "healthy", "runs/good"]
        assert head[2].split() == ["✗", "lr-too-high", "step", "120", "high", "runs/lr1"]
        assert head[3].split() == ["?", "cannot", "judge", "runs/short"]
        assert "runs/lr1 is sick" in text
        assert "runs/good looks" not in text
        assert "3 runs: 1 sick, 1 healthy, 1 cannot be judged" in text

    def test_a_wide_table_tells_steps_and_best_value(self, sick: Report, healthy: Report):
        head, *rows = shown(healthy, sick, width=120).splitlines()[:3]
        assert head.split() == ["diagnosis", "onset", "sure", "steps", "best", "run"]
        assert rows[0].split() == ["✓", "healthy", "40", "0.5", "val", "loss", "runs/good"]
        assert max(map(len, rows)) <= 120

    def test_the_worst_are_shown_and_the_rest_is_named(self, sick: Report):
        runs = [replace(sick, run=f"run{i}") for i in range(5)]
        text = shown(*runs, in_full=2)
        assert text.count(" is sick: ") == 2
        assert "run0 is sick" in text
        assert "3 more sick runs not shown whole" in text
        assert shown(*runs, in_full=0).count(" is sick: ") == 0

    def test_rows_are_written_as_they_come(self, sick: Report, healthy: Report):
        file = io.StringIO()

        def judged():
            yield sick
            yield healthy
            assert "runs/lr1" in file.getvalue()
            assert "runs/good" in file.getvalue()
            yield sick

        show_all(judged(), Console(file=file, width=80))
        assert file.getvalue().count("✗ lr-too-high  ") == 2

    def test_a_pipe_gets_whole_names(self, sick: Report, healthy: Report):
        name = "a-very-long-name/" * 12
        assert name in shown(replace(healthy, run=name), healthy)


def test_what_does_not_suit_a_run_is_said_with_the_reason(sick: Report) -> None:
    lead = sick.diagnoses[0]
    against = "use a smaller model: the training loss itself is high"
    told = replace(sick, diagnoses=(replace(lead, root=replace(lead.root, ruled_out=(against,))), *sick.diagnoses[1:]))
    out = io.StringIO()
    terminal.show(told, Console(file=out, width=100))
    assert f"  What does not suit this run\n  - {against}\n" in out.getvalue()
