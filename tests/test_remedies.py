"""Remedies: complete, and their code is code that the named framework takes."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable

import fitdoctor.remedies as module
import pytest
from fitdoctor.finding import Remedy

REMEDIES: dict[str, Callable[..., Remedy]] = {
    name: value
    for name, value in vars(module).items()
    if inspect.isfunction(value) and value.__module__.startswith(module.__name__) and not name.startswith("_")
}


def made(name: str) -> list[Remedy]:
    """The remedy with its defaults, and with a value for everything it takes."""
    make = REMEDIES[name]
    given = {}
    for parameter in inspect.signature(make, eval_str=True).parameters.values():
        kind = parameter.annotation
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
