"""DDP and FSDP2 with two processes over gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def two_processes(kind: str, folder: Path) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "ranks_script.py"), kind, str(rank), f"{folder}/store", f"{folder}/log"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        outputs = [p.communicate(timeout=150) for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert all(p.returncode == 0 for p in processes), "\n".join(err for _, err in outputs)
    return dict(json.loads(outputs[0][0].strip().splitlines()[-1]))


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_norms_are_of_the_whole_model(kind: str, tmp_path: Path) -> None:
    found = two_processes(kind, tmp_path)
    assert found["files"] == 1  # rank 0 writes, the other does not
    assert found["layers"] == found["names"]
    assert set(found["activations"]) == {"0", "1", "2"}
    assert list(found["loss"]) == [str(i) for i in range(1, 9)]
    recorded = [i for i in range(1, 9) if str(i) in found["weight_norm"]]
    assert {2, 4, 6, 8} <= set(recorded)
    for i in recorded:
        assert found["grad_norm"][str(i)] == pytest.approx(found["norms"][i - 1], rel=1e-5)
        assert found["weight_norm"][str(i)] == pytest.approx(found["weights"][i - 1], rel=1e-5)
        assert found["update_ratio"][str(i)] == pytest.approx(
            0.1 * found["norms"][i - 1] / found["weights"][i - 1], rel=1e-4
        )
    if kind == "ddp":
        assert set(found["disagreement"].values()) == {0.0}


def test_clipped_and_sharded(tmp_path: Path) -> None:
    found = two_processes("fsdp clip", tmp_path)
    assert found["grad_norm"]["8"] > 0.1  # before clipping
    assert found["update_ratio"]["8"] == pytest.approx(0.1 * 0.1 / found["weights"][7], rel=1e-3)


def test_ranks_that_drift_apart_are_seen(tmp_path: Path) -> None:
    found = two_processes("ddp disagree", tmp_path)
    assert found["disagreement"]["4"] == 0.0
    assert found["disagreement"]["6"] > 0.01


def test_a_monitor_on_rank_0_alone_blocks_nobody(tmp_path: Path) -> None:
    found = two_processes("ddp on rank 0 only", tmp_path)
    assert found["grad_norm"]["8"] == pytest.approx(found["norms"][7], rel=1e-5)
    assert not found["disagreement"]
