"""Who may import whom: the table of docs/architecture.md, held by the syntax trees of all modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import fitdoctor

PACKAGE = Path(fitdoctor.__file__).parent
JUDGED = {"finding", "run", "signals"}
ANYTHING = {p.stem for p in PACKAGE.iterdir()} - {"cli", "testing", "__pycache__"}
MAY_IMPORT: dict[str, set[str]] = {
    "stats": set(),
    "errors": set(),
    "signals": set(),
    "display": set(),
    "figures": {"display"},
    "run": {"signals", "display", "figures"},
    "finding": {"run", "signals", "display"},
    "layer_maps": {"run", "signals"},
    "knobs": {"finding"},
    "remedies": {"finding"},
    "rule": {"errors", *JUDGED},
    "views": {"rule", "stats", *JUDGED},
    "rules": {"rule", "remedies", "stats", "views", *JUDGED},
    "report": {"report_json", "layer_maps", "display", "figures", *JUDGED},
    "report_json": {"report", "errors", "layer_maps", *JUDGED},
    "prescribe": {"knobs", "remedies", "views", *JUDGED},
    "causes": {"rule"},
    "triage": {"causes", "rule", "report", *JUDGED},
    "readers": {"run", "signals", "errors"},
    "reporters": {"report", "finding", "layer_maps", "run"},
    "config": {"run", "errors"},
    "catalogue": {"rule", "rules", "preflight", "errors"},
    "diagnose": {
        "catalogue",
        "config",
        "preflight",
        "errors",
        "layer_maps",
        "prescribe",
        "report",
        "triage",
        "rule",
        "views",
        *JUDGED,
    },
    "compare": {
        "config",
        "diagnose",
        "errors",
        "knobs",
        "report",
        "reporters",
        "stats",
        "views",
        *JUDGED,
    },
    "export": {"catalogue", "errors", "finding", "report", "reporters", "run", "triage"},
    "sweep": {"compare", "errors", "finding", "readers", "report", "reporters", "run", "signals", "stats"},
    "many": {"catalogue", "config", "diagnose", "errors", "readers", "report", "run"},
    "live": {"catalogue", "config", "diagnose", "finding", "readers", "report", "errors", "run", "signals"},
    "preflight": {"catalogue", "prescribe", "report", "remedies", "rule", "stats", "triage", "errors", *JUDGED},
    "mcp_server": {
        "catalogue",
        "compare",
        "config",
        "diagnose",
        "errors",
        "manual",
        "many",
        "readers",
        "report",
        "reporters",
        "run",
        "signals",
    },
    "manual": {"preflight", "reporters", "rule"},
    "tensorboard_plugin": {"config", "diagnose", "many", "readers", "reporters", "report", "run", "errors"},
    "__main__": {"cli"},
    **dict.fromkeys(("cli", "testing", "__init__"), ANYTHING),
}
MAY_IMPORT_TORCH = {"live", "preflight"}
HEAVY = {"torch", "lightning", "transformers", "tensorflow", "tensorboard", "torchvision"}


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide who imports whom"
            inside = node.module == "fitdoctor"  # `from fitdoctor import x` names a module, or the version
            yield from (f"{node.module}.{a.name}" if inside else str(node.module) for a in node.names)


def violations(package: Path) -> list[str]:
    found = []
    for module in sorted(package.rglob("*.py")):
        part = module.relative_to(package).with_suffix("").parts[0]
        for name in imports(module):
            top, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            ours = top == "fitdoctor" and other not in ("", "__version__", part)
            heavy = top in HEAVY and part not in MAY_IMPORT_TORCH | {"tensorboard_plugin"}
            if (ours and other not in MAY_IMPORT.get(part, set())) or heavy:
                found.append(f"{module.relative_to(package)} imports {name}")
    return found


def test_every_module_imports_only_what_the_architecture_allows():
    assert violations(PACKAGE) == []


def test_every_part_of_the_package_has_its_place_in_the_table():
    parts = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert parts - MAY_IMPORT.keys() == set()


def test_the_check_finds_each_kind_of_violation(tmp_path: Path):
    wrong = {
        "rules/fit/bad.py": "from fitdoctor.readers import open_runs",
        "reporters/bad.py": "def f():\n    from fitdoctor import catalogue",
        "readers/bad.py": "import torch.nn",
        "stats.py": "import fitdoctor.signals as s",
        "newcomer.py": "from fitdoctor.run import Run",
    }
    for name, text in {**wrong, "rules/good.py": "import numpy\nfrom fitdoctor.run import Run"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    assert {v.partition(" ")[0] for v in violations(tmp_path)} == set(wrong)
