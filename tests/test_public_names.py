"""The public names of the package mean the same whatever was imported before."""

from __future__ import annotations

import subprocess
import sys

import fitdoctor
import pytest


@pytest.mark.parametrize("name", fitdoctor.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(fitdoctor, name) is not None


@pytest.mark.parametrize("name", ["diagnose", "rule"])
@pytest.mark.parametrize("first", ["", "import fitdoctor.cli.analyze, fitdoctor.diagnose, fitdoctor.rule; "])
def test_a_submodule_never_takes_the_place_of_the_function(name: str, first: str) -> None:
    use = f"from fitdoctor import {name}; import fitdoctor.{name}; print(callable(fitdoctor.{name}), callable({name}))"
    told = subprocess.run([sys.executable, "-c", first + use], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["True", "True"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'diagnoze'"):
        _ = fitdoctor.diagnoze
