"""The examples run as they stand."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))

SAYS = {
    "find_the_nan": "step 3: the gradient with respect to 0 is the first that is not finite",
    "mixed_precision": "loss_weight        0.25",
    "plain_loop": "the monitor used",  # the verdict of so short a run depends on how many steps could be recorded
    "stop_when_sick": "stopped: nonfinite-loss",
    "two_optimizers": "update_ratio  critic",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert SAYS[path.stem] in capsys.readouterr().out


def test_every_example_is_checked() -> None:
    assert {p.stem for p in EXAMPLES} == set(SAYS)
