"""The examples run as they stand."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))

SAYS = {
    "accelerate_loop": "steps: 500 | loss weight: 0.5",
    "accumulation": "backward calls per step: 4.0 | loss weight: 0.25",
    "checkpointed_residuals": "output of each block's layer",
    "clipping": "| after: 0.99",
    "compiled": "graphs: 1",
    "distributed": "the ranks' weights differ by 0.0",
    "find_the_nan": "step 3: the gradient with respect to 0 is the first that is not finite",
    "fused_and_foreach": "('fused', True) {'loss'",
    "ignite_engine": "steps: 300 | iterations: 600",
    "keras_fit": "found: ['double-softmax']",
    "lbfgs_closure": "steps: 20 |",
    "lightning_callback": "lightning_logs/version_1 | sick",
    "mixed_precision": "first non-finite value: None",
    "preflight_broken_program": "with shuffled batches: healthy",
    "preflight_find_lr": "steps of warm-up to",
    "plain_loop": "the monitor used",  # the verdict of so short a run depends on how many steps could be recorded
    "resume": "one run of 300 steps",
    "sparse_embedding": "gradient norm of the embedding: 0.0",
    "stop_when_sick": "stopped: nonfinite-loss",
    "transformers_callback": "fitdoctor: step 41: ",
    "tied_and_frozen": "measured: ['embed.weight', 'mix.bias', 'mix.weight']",
    "two_optimizers": "update_ratio  critic",
    "validation_and_probes": "steps: 300 | in train mode: 1.0",
}

ARGUMENTS = {"distributed": ["ddp"]}  # test_ranks.py trains with FSDP2


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # importing Ignite
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")  # Keras
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")  # Lightning
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator is found")  # Transformers
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setattr("sys.argv", [str(path), *ARGUMENTS.get(path.stem, ())])
    runpy.run_path(str(path), run_name="__main__")
    assert SAYS[path.stem] in capfd.readouterr().out


def test_every_example_is_checked() -> None:
    assert {p.stem for p in EXAMPLES} == set(SAYS)
