"""The config file: where it is found, what it may hold, and what it says of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from fitdoctor.config import Config, config_from, find_config, load_config
from fitdoctor.errors import ConfigError

WHOLE = """
select = ["LRN", "overfitting"]
fail_on = "warning"
[ignore]
plateau = "it ends on a plateau on purpose"
[map]
"my/acc" = "accuracy:val"
[facts]
classes = 10
optimizer = "SGD"
[rules.overfitting]
rise = 0.1
"""


def prefixed(text: str) -> str:
    """The same settings as a part of pyproject.toml."""
    tables = text.replace("[ignore]", "[tool.fitdoctor.ignore]").replace("[map]", "[tool.fitdoctor.map]")
    tables = tables.replace("[facts]", "[tool.fitdoctor.facts]").replace("[rules.", "[tool.fitdoctor.rules.")
    return "[project]\nname = 'x'\n[tool.fitdoctor]" + tables


def test_both_files_say_the_same(tmp_path: Path):
    (tmp_path / "fitdoctor.toml").write_text(WHOLE, "utf-8")
    (tmp_path / "pyproject.toml").write_text(prefixed(WHOLE), "utf-8")
    own, shared = load_config(tmp_path / "fitdoctor.toml"), load_config(tmp_path / "pyproject.toml")
    assert own == shared
    assert own == Config(
        select=("LRN", "overfitting"),
        ignore={"plateau": "it ends on a plateau on purpose"},
        options={"overfitting": {"rise": 0.1}},
        tags={"my/acc": "accuracy:val"},
        facts={"classes": 10, "optimizer": "SGD"},
        fail_on="warning",
    )


def test_ignore_may_be_a_list():
    assert config_from({"ignore": ["plateau", "LRN"]}).ignore == {"plateau": "", "LRN": ""}


class TestWhereItIsFound:
    def test_the_nearest_upwards(self, tmp_path: Path):
        below = tmp_path / "a" / "b"
        below.mkdir(parents=True)
        assert find_config(below) is None
        (tmp_path / "pyproject.toml").write_text("[tool.fitdoctor]\nfail_on = 'note'", "utf-8")
        assert find_config(below) == tmp_path / "pyproject.toml"
        (tmp_path / "a" / "fitdoctor.toml").write_text("", "utf-8")
        assert find_config(below) == tmp_path / "a" / "fitdoctor.toml"

    def test_a_pyproject_without_our_table_is_passed_over(self, tmp_path: Path):
        (tmp_path / "pyproject.toml").write_text("[tool.other]\nx = 1", "utf-8")
        assert find_config(tmp_path) is None

    def test_a_broken_pyproject_that_is_not_ours_is_passed_over(self, tmp_path: Path):
        (tmp_path / "pyproject.toml").write_text("[tool.other\n", "utf-8")
        assert find_config(tmp_path) is None

    def test_a_broken_one_that_is_ours_is_told(self, tmp_path: Path):
        (tmp_path / "pyproject.toml").write_text("[tool.fitdoctor]\nx = = 1", "utf-8")
        path = find_config(tmp_path)
        assert path is not None
        with pytest.raises(ConfigError, match=r"pyproject.toml: expected TOML: .*line 2"):
            load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("selct = []", "unknown key 'selct'; did you mean 'select'?; the keys are select, ignore"),
        ("select = 'LRN'", "select: expected a list of names, got 'LRN'"),
        ("select = [1]", "select: expected a list of names, got [1]"),
        ("fail_on = 'eror'", "fail_on: expected one of error, warning, note, never, got 'eror'; did you mean 'error'?"),
        ("fail_on = 3", "fail_on: expected one of"),
        ("ignore = 'x'", "ignore: expected a table, got 'x'"),
        ("[ignore]\nx = 3", "ignore.x: expected str, got 3"),
        ("[map]\nx = 3", "map.x: expected str, got 3"),
        ("map = 3", "map: expected a table, got 3"),
        ("[facts]\nx = [1]", "facts.x: expected str or int or float or bool, got [1]"),
        ("[facts]\nclases = 3", "unknown fact 'clases'; did you mean 'classes'?"),
        ("[rules]\nx = 3", "rules.x: expected dict, got 3"),
        ("x = = 1", "expected TOML:"),
    ],
)
def test_a_mistake_is_told_with_file_place_and_advice(tmp_path: Path, text: str, message: str):
    path = tmp_path / "fitdoctor.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert str(caught.value).count(str(path)) == 1


def test_facts_of_plug_ins_are_allowed():
    assert config_from({"facts": {"moon_phase": "full"}}).facts == {"moon_phase": "full"}


def test_a_table_that_is_none(tmp_path: Path):
    (tmp_path / "pyproject.toml").write_text("[tool]\nfitdoctor = 3", "utf-8")
    with pytest.raises(ConfigError, match=r"tool.fitdoctor: expected a table, got 3"):
        load_config(tmp_path / "pyproject.toml")
