"""Running a Python program as ``python program.py`` does, and hearing when it imports something."""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any

from fitdoctor.errors import FitdoctorError


class NoSuchProgram(FitdoctorError):
    """There is no program of that name."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program with its arguments.

    Attributes:
        target: path of a script, or name of a module.
        args: arguments of the program.
        is_module: whether it is a module, as in ``python -m``.
    """

    target: str
    args: Sequence[str] = ()
    is_module: bool = False

    def check(self) -> None:
        """Raises:
        NoSuchProgram: if there is no such script.
        """
        if not self.is_module and not os.path.isfile(self.target):
            raise NoSuchProgram(f"{self.target}: no such file; `fitdoctor run -m NAME` runs a module")

    @property
    def name(self) -> str:
        """A short name for its runs."""
        if self.is_module:
            return self.target.removesuffix(".__main__").rpartition(".")[2]
        return os.path.splitext(os.path.basename(self.target))[0]

    def run(self) -> None:
        """Run it in this interpreter; what it raises is passed on, `SystemExit` included."""
        module, code = self._loaded_module() if self.is_module else self._loaded_script()
        exec(code, module.__dict__)

    def _loaded_script(self) -> tuple[ModuleType, CodeType]:
        path = os.path.abspath(self.target)
        sys.argv[:] = [self.target, *self.args]
        _put_first(os.path.dirname(os.path.realpath(path)))
        module = _fresh_main()
        module.__file__ = path
        module.__loader__ = SourceFileLoader("__main__", path)
        module.__dict__["__cached__"] = None
        with io.open_code(path) as file:
            return module, compile(file.read(), path, "exec", dont_inherit=True)

    def _loaded_module(self) -> tuple[ModuleType, CodeType]:
        sys.argv[:] = ["-m", *self.args]
        _put_first(os.getcwd())
        spec, code = self._found(self.target)
        sys.argv[0] = spec.origin or self.target
        module = _fresh_main()
        module.__spec__, module.__loader__, module.__package__ = spec, spec.loader, spec.parent
        if spec.origin is not None:
            module.__file__ = spec.origin
        module.__dict__["__cached__"] = spec.cached
        return module, code

    def _found(self, name: str) -> tuple[ModuleSpec, CodeType]:
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            spec = None
        if spec is not None and spec.submodule_search_locations is not None:
            return self._found(f"{name}.__main__")
        code = getattr(spec.loader, "get_code", lambda name: None)(name) if spec is not None else None
        if spec is None or code is None:
            raise NoSuchProgram(f"{self.target}: no module of that name that could be run")
        return spec, code


def _fresh_main() -> ModuleType:
    """A new ``__main__``: what the program pickles, and what it is spawned from, is found there."""
    module = ModuleType("__main__")
    module.__dict__.update(__builtins__=builtins, __annotations__={})
    sys.modules["__main__"] = module
    return module


def _put_first(folder: str) -> None:
    """The first entry of the module path is the program's folder, as Python has it, unless it was told not to."""
    if not sys.flags.safe_path:
        sys.path[0] = folder


def shown_traceback(error: BaseException) -> None:
    """Show an exception that nobody caught as Python would, through the program's own hook, without our frames."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("fitdoctor.cli"):
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)


def quiet_interrupt() -> None:
    """Have the interpreter end as after Ctrl-C, without showing the exception once more."""
    sys.excepthook = lambda *args: None
    raise KeyboardInterrupt


class AfterImport(MetaPathFinder):
    """Calls a function when a module has been imported for the first time; at once where it is there.

    Args:
        name: of the module.
        then: what to do; it must not raise.

    Attributes:
        under_way: whether the import has begun and not ended.
    """

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.under_way = False
        self._name, self._then = name, then

    def wait(self) -> None:
        """Begin to wait."""
        sys.meta_path.insert(0, self)
        if self._name in sys.modules:
            self._then()

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find it where it would be found without us."""
        if fullname != self._name:
            return None
        self.remove()
        spec = importlib.util.find_spec(fullname)
        loader: Any = spec.loader if spec is not None else None
        if loader is None:
            return spec
        load = loader.exec_module

        def load_and_tell(module: ModuleType) -> None:
            del loader.exec_module
            self.under_way = True
            try:
                load(module)
            finally:
                self.under_way = False
            self._then()

        loader.exec_module = load_and_tell
        return spec

    def remove(self) -> None:
        """Wait no longer."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
