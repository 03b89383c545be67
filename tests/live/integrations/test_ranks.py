"""Two processes over gloo, by Lightning and by the Hugging Face Trainer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def two_processes(folder: Path) -> list[dict[str, Any]]:
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "ranks_script.py"), str(rank), port, str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        outputs = [p.communicate(timeout=300) for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert all(p.returncode == 0 for p in processes), "\n".join(err for _, err in outputs)
    return [dict(json.loads(out.strip().splitlines()[-1])) for out, _ in outputs]


def test_all_processes_stop_after_the_same_step_and_one_writes(tmp_path: Path) -> None:
    first, second = two_processes(tmp_path)
    for name in ("lightning", "transformers"):
        a, b = first[name], second[name]
        assert not a["off"]
        assert not b["off"]
        assert a["steps"] == b["steps"], name
        assert a["steps"][0] == a["steps"][1] < 300
        assert a["facts"] == {"world_size": 2, "gradient_accumulation_steps": 2}
        assert a["disagreement"] == 0
        files = list((tmp_path / name / "fitdoctor").iterdir())
        assert len(files) == 1
    assert first["lightning"]["weight"] == 0.5
    # The model divides by the items of both processes; the Trainer logs the mean over them, each of ours is of its own.
    mean = (first["transformers"]["first loss"] + second["transformers"]["first loss"]) / 2
    assert mean == pytest.approx(first["transformers"]["its own first loss"], rel=1e-3)
