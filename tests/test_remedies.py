"""Remedies: complete, and their code is code that the named framework takes: for PyTorch it is run."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import fitdoctor.remedies as package
import pytest
from fitdoctor.finding import Remedy, RemedyKind
from fitdoctor.prescribe import ORDER, kind_of

MODULES = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
REMEDIES: dict[str, Callable[..., Remedy]] = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in MODULES
    for name, value in vars(module).items()
    if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
}


def made(name: str) -> list[Remedy]:
    """The remedy with its defaults, and with a value for everything it takes."""
    make = REMEDIES[name]
    given = {}
    for parameter in inspect.signature(make, eval_str=True).parameters.values():
        kind = parameter.annotation
        if get_args(kind) and isinstance(get_args(kind)[0], str):  # one of some words: the last
            given[parameter.name] = get_args(kind)[-1]
        elif parameter.name == "names":  # of parameters
            given[parameter.name] = "head.weight" if kind is str else ["head.weight"]
        else:
            given[parameter.name] = "epoch" if kind is str else 500 if "int" in str(kind) else 0.3
    return [make(), make(**given)]


@pytest.mark.parametrize("name", REMEDIES)
def test_a_remedy_says_what_and_why(name: str) -> None:
    for remedy in made(name):
        assert remedy.title
        assert remedy.title[0].islower()
        assert not remedy.title.endswith(".")
        assert remedy.why
        assert set(remedy.code) <= {"pytorch", "lightning", "transformers"}
        assert "None" not in remedy.title


@pytest.mark.parametrize("name", REMEDIES)
def test_the_code_of_a_remedy_parses(name: str) -> None:
    for remedy in made(name):
        for framework, code in remedy.code.items():
            try:
                ast.parse(code)
            except SyntaxError:
                ast.parse("def configure_optimizers(self):\n" + "\n".join("    " + line for line in code.split("\n")))
            assert "\t" not in code, framework


def dotted(node: ast.expr) -> list[str]:
    """The parts of a plain dotted name, or nothing."""
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return [*inner, node.attr] if inner else []
    return [node.id] if isinstance(node, ast.Name) else []


@pytest.mark.parametrize("name", REMEDIES)
def test_names_of_torch_exist_and_take_these_arguments(name: str) -> None:
    torch = pytest.importorskip("torch")
    known = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional}
    for remedy in made(name):
        for node in ast.walk(ast.parse(remedy.code.get("pytorch", ""))):
            if not isinstance(node, ast.Call):
                continue
            head, *path = dotted(node.func) or [""]
            if head not in known:
                continue
            target = known[head]
            for part in path:
                target = getattr(target, part)
            try:
                signature = inspect.signature(target)
            except ValueError:  # built in C, without a signature
                continue
            signature.bind(*node.args, **{k.arg: k.value for k in node.keywords if k.arg})


@pytest.mark.parametrize("name", REMEDIES)
def test_a_change_names_a_knob(name: str) -> None:
    for remedy in made(name):
        if remedy.change is not None:
            assert remedy.change.knob.isidentifier()
            assert (remedy.change.value is None) == (remedy.change.op in ("enable", "disable"))


# --- what kind it is, and how to see that it worked ---------------------------------------------------


def test_every_kind_has_its_place() -> None:
    assert set(ORDER) == set(get_args(RemedyKind)) - {""}


@pytest.mark.parametrize("name", [n for n in REMEDIES if not n.startswith("before_run.")])  # probes order their own
def test_a_remedy_says_what_kind_it_is(name: str) -> None:
    for remedy in made(name):
        assert remedy.kind in ORDER, "without a kind it is taken for a bug fix, unless its knob says otherwise"
        assert kind_of(remedy) == remedy.kind


@pytest.mark.parametrize("name", [n for n in REMEDIES if n.partition(".")[0] in ("learning_rate", "fit", "stability")])
def test_what_a_log_can_show_names_the_command_that_shows_it(name: str) -> None:
    shown_elsewhere = ("use_best_checkpoint", "find_first_nonfinite", "inspect_batches", "find_mislabelled")
    for remedy in made(name):
        assert remedy.confirm
        if name.rpartition(".")[2] not in (*shown_elsewhere, "balance_classes", "split_again"):
            assert "`fitdoctor " in remedy.confirm


def test_what_the_subject_demands_is_there() -> None:
    """The advice that every introduction to training gives; each is a remedy that a rule or a probe can give."""
    wanted = {
        "rate": "lower_learning_rate raise_learning_rate start_from_published_rate search_learning_rate",
        "fine-tuning": "fine_tune_gently",
        "schedule": "decay_learning_rate warm_up stretch_schedule",
        "data": "split_again more_data augment_data normalise_inputs",
        "fit": "regularise drop_out stop_early add_capacity shrink_model",
        "gradients": "clip_gradients shorten_gradient_path normalise_layers check_initialisation",
        "memory": "smaller_batch_accumulated halve_precision checkpoint_activations load_on_host drop_graphs",
    }
    assert {name for names in wanted.values() for name in names.split()} <= {
        name.rpartition(".")[2] for name in REMEDIES
    }


# --- code that runs -----------------------------------------------------------------------------------

NOT_RUN = {
    "setup.synchronise_ranks": "needs a process group",
    "setup.use_bfloat16": "needs a GPU",
    "setup.scale_gradients": "needs a GPU",
    "setup.keep_master_weights": "needs a GPU",
    "memory.halve_precision": "needs a GPU",
    "memory.lighter_optimizer": "needs a process group",
    "memory.feed_faster": "starts more workers than a small machine has cores",
    "before_run.seed_workers": "is a dataset's method and a loader's argument",
}


@cache
def torch_names() -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    import numpy as np
    from torch.utils.data import DataLoader

    return {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "DataLoader": DataLoader, "np": np}


def toy_loop() -> dict[str, Any]:
    """The names that the lines for PyTorch may use, as an ordinary script has them."""
    names = torch_names()
    torch, nn = names["torch"], names["nn"]
    torch.manual_seed(0)
    inputs, labels = torch.randn(128, 8), torch.randint(0, 3, (128,))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1))
            self.head = nn.Linear(16, 3)
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.norm, self.block, self.blocks = nn.LayerNorm(8), nn.Linear(8, 8), nn.ModuleList([nn.Linear(8, 8)])

        def forward(self, x: Any) -> Any:
            return self.head(self.body(x))

    class Writer:
        def add_scalar(self, tag: str, value: float, step: int) -> None:
            assert isinstance(value, float)

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    dataset = torch.utils.data.TensorDataset(inputs, labels)
    loader = names["DataLoader"](dataset, batch_size=16)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    state = {"opt": optimizer.state_dict(), "sched": scheduler.state_dict(), "model": model.state_dict()}
    criterion = nn.CrossEntropyLoss()
    criterion(model(inputs), labels).backward()
    optimizer.step()
    loss = criterion(model(inputs), labels)
    torch.save(state, "checkpoint.pt")
    p = model.head.weight
    return {
        **names, "model": model, "self": model, "optimizer": optimizer, "scheduler": scheduler, "criterion": criterion,
        "x": inputs, "y": labels, "inputs": inputs, "labels": labels, "x_train": inputs, "dataset": dataset,
        "train_set": dataset, "val_set": dataset, "loader": loader, "train_loader": loader, "val_loader": loader,
        "train": loader, "val": loader, "loss": loss, "val_loss": 1.0, "best": 2.0, "waited": 0, "lr": 0.1,
        "total_steps": 100, "warmup_steps": 10, "epochs": 2, "epoch": 0, "step": 5, "i": 1, "ckpt": state,
        "path": "ckpt.pt", "logdir": "logs", "writer": Writer(), "evaluate": lambda m: 0.5, "head": model.head,
        "body": model.body, "p90_of_grad_norm": 1.0, "first_step_after_resume": 10,
        "SummaryWriter": lambda *a, **k: None, "accumulate": 4, "scores": model(inputs),
        "sampler": type("Sampler", (), {"set_epoch": lambda self, epoch: None})(),
        "total": 0.0, "losses": [], "paths": ["a", "b"], "batch_size": 16, "groups": labels.numpy(), "val_x": inputs,
        "y_train": inputs[:, 0], "class_counts": torch.bincount(labels).float(), "build": Model, "device": "cpu",
        "suggestion": 0.1, "os": SimpleNamespace(environ={}), "slow": model.body, "fast": model.head,
        "weight_decay": 0.1, "backbone": model.body, "p": p, "eps": 1e-8, "state": {"exp_avg_sq": p.grad.square()},
    }  # fmt: skip


@pytest.mark.parametrize("name", [n for n in REMEDIES if n not in NOT_RUN])
def test_the_lines_for_pytorch_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for remedy in made(name):
        code = remedy.code.get("pytorch", "")
        names = toy_loop()
        if "squeeze(-1)" in code:  # a regression
            names["model"], names["y"] = names["nn"].Linear(8, 1), names["torch"].randn(128)
        if "BCEWithLogits" in code:
            names["y"] = names["F"].one_hot(names["y"], 3).float()
        with contextlib.redirect_stdout(io.StringIO()):
            if names["nn"] and "self." in code and "def " not in code:
                names["self"].add_module("head", names["nn"].Linear(8, 3))
            exec(compile(code, name, "exec"), names)


def test_a_line_that_cannot_run_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NameError):
        exec(compile("learning_rat = lr2", "x", "exec"), toy_loop())


def test_nothing_is_left_out_that_is_not_there() -> None:
    assert set(NOT_RUN) <= set(REMEDIES)
