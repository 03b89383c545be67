"""The TensorBoard reader: values, order and layouts, against plain decoders and TensorBoard itself."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fitdoctor.readers import tensorboard
from fitdoctor.readers.raw import RawRun
from fitdoctor.readers.tensorboard import files as event_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import event_files as plain

FIXTURE = Path(__file__).parents[1] / "fixtures" / "tensorboard"


def write(path: Path, bodies: Iterable[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(plain.record(body) for body in (plain.version(), *bodies)))
    return path


def read(*files: Path) -> RawRun:
    (run,) = tensorboard.read(files[0].parent, files)
    return run


def by_tag(points: Sequence[plain.Point]) -> dict[str, list[tuple[int, float, float]]]:
    out: dict[str, list[tuple[int, float, float]]] = {}
    for p in points:
        out.setdefault(p.tag, []).append((p.step, p.value, p.wall_time))
    return out


def columns(run: RawRun) -> dict[str, list[tuple[int, float, float]]]:
    out = {}
    for s in run.series:
        if not s.statistic:
            assert s.steps is not None
            assert s.wall_time is not None
            assert (s.steps.dtype, s.values.dtype, s.wall_time.dtype) == (np.int64, np.float64, np.float64)
            out[s.tag] = list(zip(s.steps.tolist(), s.values.tolist(), s.wall_time.tolist(), strict=True))
    return out


def assert_same(run: RawRun, points: Sequence[plain.Point]) -> None:
    wanted, got = by_tag(points), columns(run)
    assert list(got) == list(wanted)  # tags in order of first appearance
    for tag, rows in wanted.items():
        assert repr(got[tag]) == repr(rows), tag  # repr: nan equals nan


# --- layouts -------------------------------------------------------------------------------------

WRITERS = {
    "simple_value": plain.simple,
    "tensor_content": plain.content,
    "tensor_content_double": lambda tag, value: plain.content(tag, value, "d"),
    "tensor_content_int": lambda tag, value: plain.content(tag, round(value * 100), "i"),
    "tensor_content_int64": lambda tag, value: plain.content(tag, round(value * 1e6), "q"),
    "float_val": plain.listed,
    "float_val_unpacked": lambda tag, value: plain.listed(tag, value, packed=False),
    "double_val": lambda tag, value: plain.listed(tag, value, "d"),
    "int_val": lambda tag, value: plain.listed(tag, round(value * 100), "i"),
    "int64_val": lambda tag, value: plain.listed(tag, round(value * 1e6), "q", packed=False),
    "no_metadata": lambda tag, value: plain.content(tag, value, plugin=b""),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("regular", [True, False], ids=["regular", "irregular"])
def test_every_layout_of_a_scalar_gives_the_numbers_that_were_written(tmp_path: Path, name: str, regular: bool) -> None:
    draw = random.Random(7)
    tags = ["loss", "train/acc", "val/loss", "a/very/long/name/of/a/layer.weight/grad_norm" * 4, "lr"]
    bodies = []
    for step in range(0, 900, 2):  # passes 128: the varint of the step takes a second byte
        order = tags if regular else draw.choices(tags, k=draw.randint(0, 6))
        bodies += [plain.event(step, 1e9 + step / 3, WRITERS[name](tag, draw.uniform(-9, 9))) for tag in order]
    file = write(tmp_path / "events.out.tfevents.1.host", bodies)
    assert_same(read(file), plain.points(file.read_bytes()))


def test_one_event_may_hold_many_values(tmp_path: Path) -> None:
    bodies = [
        plain.event(step, float(step), *(plain.simple(f"layer{i}/norm", step * 1000 + i) for i in range(300)))
        for step in range(150)
    ]
    file = write(tmp_path / "events.out.tfevents.1.host", bodies)
    assert_same(read(file), plain.points(file.read_bytes()))


def test_the_same_tag_twice_in_a_step_keeps_its_order(tmp_path: Path) -> None:
    bodies = [
        plain.event(step, float(step), *(plain.simple(tag, step + k / 10) for k in range(3)))
        for step in range(400)
        for tag in ("a", "b")
    ]
    bodies += [plain.event(s, 1.0, plain.simple(t, s)) for s in range(300) for t in ("a", "b", "a")]
    file = write(tmp_path / "events.out.tfevents.1.host", bodies)
    assert_same(read(file), plain.points(file.read_bytes()))


@pytest.mark.parametrize("step", [0, 1, 127, 128, 2**31, 2**40, 2**56 - 1, 2**56, 2**63 - 1, -1])
def test_every_step_number_is_read(tmp_path: Path, step: int) -> None:
    bodies = [plain.event(step, 5.0, plain.simple("loss", i)) for i in range(50)]
    file = write(tmp_path / "events.out.tfevents.1.host", bodies)
    assert_same(read(file), plain.points(file.read_bytes()))


def test_nan_and_infinity_are_data(tmp_path: Path) -> None:
    values = [1.0, float("nan"), float("inf"), -float("inf"), 0.0, -0.0] * 20
    file = write(
        tmp_path / "events.out.tfevents.1.host",
        [plain.event(i, 1.0, plain.simple("x", v)) for i, v in enumerate(values)],
    )
    assert_same(read(file), plain.points(file.read_bytes()))


def test_a_tag_that_is_no_utf8_costs_nothing_else(tmp_path: Path) -> None:
    broken = plain.message(1, b"l\xff") + b"\x15\x00\x00\x80\x3f"
    bodies = [plain.event(i, 1.0, value) for i in range(40) for value in (broken, plain.simple("ok", i))]
    run = read(write(tmp_path / "events.out.tfevents.1.host", bodies))
    assert {s.tag: len(s.values) for s in run.series} == {"l�": 40, "ok": 40}


def test_images_and_unknown_plugins_are_passed_over(tmp_path: Path) -> None:
    bodies = []
    for step in range(60):
        bodies.append(plain.event(step, 1.0, plain.simple("loss", step)))
        bodies.append(plain.event(step, 1.0, plain.image("sample", 5000 + step)))
        bodies.append(plain.event(step, 1.0, plain.content("thing", step, plugin=b"my_plugin")[:-2]))
    run = read(write(tmp_path / "events.out.tfevents.1.host", bodies))
    assert [(s.tag, len(s.values)) for s in run.series] == [("loss", 60)]


# --- random logs ----------------------------------------------------------------------------------

_tags = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), min_size=1, max_size=6, unique=True)


@st.composite
def logs(draw: st.DrawFn) -> list[bytes]:
    """Bodies of a log: stretches that repeat, stretches that do not, in mixed layouts."""
    tags = draw(_tags)
    writers = [WRITERS[draw(st.sampled_from(sorted(WRITERS)))] for _ in tags]
    seed = random.Random(draw(st.integers(0, 2**32)))
    step = draw(st.sampled_from([0, 1, 100, 16_000, 2_000_000]))
    bodies: list[bytes] = []
    for _ in range(draw(st.integers(1, 4))):
        order = draw(st.permutations(range(len(tags))))
        shuffled, every = draw(st.booleans()), draw(st.integers(0, 40))
        for i in range(draw(st.integers(1, 120))):
            step += draw(st.sampled_from([1, 1, 1, 50])) if i % 10 == 0 else 1
            row = seed.sample(order, seed.randint(0, len(order))) if shuffled else order
            bodies += [plain.event(step, seed.random() * 1e9, writers[k](tags[k], seed.gauss(0, 9))) for k in row]
            if every and i % every == 0:
                bodies.append(plain.event(step, 1.0, plain.image("image", seed.randint(0, 300))))
        if draw(st.booleans()):
            step = max(0, step - 30)  # a restart
    return bodies


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(bodies=logs(), block=st.sampled_from([600, 5_000, 70_000, 4 << 20]))
def test_random_logs_equal_the_plain_decoder(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], block: int
) -> None:
    file = write(tmp_path_factory.mktemp("logs") / "events.out.tfevents.1.host", bodies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_file, "BLOCK", block)
        run = read(file)
    assert not run.notes
    assert_same(run, plain.points(file.read_bytes()))


# --- files ----------------------------------------------------------------------------------------


def test_files_of_a_folder_are_read_in_the_order_of_their_start(tmp_path: Path) -> None:
    late = write(tmp_path / "events.out.tfevents.1000.host.9.0", [plain.event(7, 2.0, plain.simple("loss", 2))])
    early = write(tmp_path / "events.out.tfevents.999.host.10.1", [plain.event(9, 1.0, plain.simple("loss", 1))])
    same_second = write(tmp_path / "events.out.tfevents.999.host.9.0", [plain.event(8, 1.0, plain.simple("loss", 0))])
    run = read(late, early, same_second)
    assert [s.values.tolist() for s in run.series] == [[0.0], [1.0], [2.0]]


def test_recognise_by_name_or_by_content(tmp_path: Path) -> None:
    head = plain.record(plain.version())
    assert tensorboard.recognise(tmp_path / "events.out.tfevents.1.host", b"")
    assert tensorboard.recognise(tmp_path / "renamed.bin", head)
    assert not tensorboard.recognise(tmp_path / "notes.txt", b"brain" + bytes(90))
    assert tensorboard.home(tmp_path / "run" / "events.out.tfevents.1.host") == tmp_path / "run"


def test_a_run_without_numbers_has_no_series(tmp_path: Path) -> None:
    run = read(write(tmp_path / "events.out.tfevents.1.host", []))
    assert (run.series, run.notes, run.source, run.name) == ((), (), "tensorboard", tmp_path.name)


def test_the_sample_of_torch(tmp_path: Path) -> None:
    run = read(*sorted((FIXTURE / "run1").glob("events*")))
    names = {s.tag for s in run.series}
    assert {"train/loss", "train/acc", "train/lr", "train/grad_norm", "val/acc"} <= names
    params = read(*(FIXTURE / "run1" / "1795386181.9615934").iterdir()).params
    assert params == {"lr": 0.01, "bs": 32}


# --- against the programs that people use ------------------------------------------------------------


def theirs(path: Path) -> dict[str, list[tuple[int, float, float]]]:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    tensor_util = pytest.importorskip("tensorboard.util.tensor_util")
    out: dict[str, list[tuple[int, float, float]]] = {}
    for event in loader.EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            plugin = value.metadata.plugin_data.plugin_name
            array = tensor_util.make_ndarray(value.tensor) if value.HasField("tensor") else np.array("")
            if array.ndim == 0 and array.dtype.kind in "fiub" and plugin in ("", "scalars"):
                out.setdefault(value.tag, []).append((event.step, float(array), event.wall_time))
    return out


def test_files_of_tensorboards_own_loader_agree() -> None:
    for path in sorted(FIXTURE.rglob("*tfevents*")):
        assert columns(read(path)) == theirs(path)


def writer(folder: Path) -> Any:
    torch = pytest.importorskip("torch.utils.tensorboard")
    return torch.SummaryWriter(str(folder))


def test_what_torch_writes(tmp_path: Path) -> None:
    log = writer(tmp_path)
    for step in range(200):
        log.add_scalar("loss", 1 / (step + 1), step)
        log.add_scalar("new", step, step, new_style=True)
        log.add_scalar("double", step / 3, step, new_style=True, double_precision=True)
        if step % 50 == 0:
            log.add_histogram("weights", np.random.default_rng(step).normal(size=1000), step)
            log.add_text("config", '{"optimizer": {"name": "adam", "lr": 0.1}, "epochs": 3}')
    log.add_text("samples", "| a | b |\n|---|---|\n| 1 | 2 |")
    log.close()
    (path,) = tmp_path.iterdir()
    run = read(path)
    assert columns(run) == theirs(path)
    assert columns(run)["double"][10][1] == 10 / 3
    assert run.params == {"optimizer/name": "adam", "optimizer/lr": 0.1, "epochs": 3}


def test_what_add_hparams_writes(tmp_path: Path) -> None:
    log = writer(tmp_path)
    log.add_hparams({"lr": 0.1, "bs": 32, "optimizer": "adam", "nesterov": True}, {"hparam/acc": 0.5}, run_name="trial")
    log.close()
    run = read(*(tmp_path / "trial").iterdir())
    # torch asks for int before bool, so a truth value arrives as a number
    assert run.params == {"lr": 0.1, "bs": 32, "optimizer": "adam", "nesterov": 1}
    assert run.finished is None
    assert columns(run)["hparam/acc"][0][1] == 0.5
