"""Who may import whom: every module under src/loralab, held to the table below. Each rule is shown to fail where it is broken."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from loralab.model.backbone import ARCHITECTURES, EMBEDDINGS

SOURCE = Path(__file__).parents[1] / "src" / "loralab"
MOST_FILE_LINES, MOST_FUNCTION_LINES = 399, 59


@dataclass(frozen=True)
class May:
    """What a module may import of ours: at its top, also inside functions, also for types. `x` means x and all below it."""

    top: tuple[str, ...] = ()
    lazily: tuple[str, ...] = ()
    types: tuple[str, ...] = ()


# All may import `errors`, and modules of their own package. A module that is not here, alone or by its package, is a failure.
TABLE: Mapping[str, May] = {
    "__init__": May(types=("classifier", "config", "pipeline")),
    "__main__": May(top=("cli",)),
    "errors": May(),
    "cache": May(),
    "settings": May(),
    "config": May(top=("settings",)),
    "metrics": May(),
    "stats": May(),
    "data": May(),
    "model": May(top=("cache",)),
    "training": May(top=("data.values", "data.batches", "model.dropout", "model.stacked")),
    "runs": May(top=("config",)),
    "ready": May(top=("cache", "config", "data", "metrics", "model", "training")),
    "pipeline": May(top=("config", "data.values", "metrics", "model", "ready", "runs", "training")),
    "classifier": May(
        top=("data.clean", "data.encode", "data.sources", "data.values", "model", "runs", "training.scoring"),
        lazily=("metrics",),
        types=("config",),
    ),
    "export": May(
        top=("classifier", "data.encode", "data.sources", "data.values", "model", "runs", "training.scoring"),
        lazily=("model",),
    ),
    "diagnose": May(top=("classifier", "data", "metrics", "runs", "stats"), lazily=("model.network",), types=("model.network",)),
    "describe": May(
        top=("config", "data.sources", "model.backbone", "model.counts", "model.storage", "runs"),
        lazily=("model.build", "model.device", "model.kernels"),
    ),
    "trials": May(top=("config", "runs")),
    "experiments": May(
        top=("config", "data", "metrics", "runs", "stats", "training.callbacks", "trials"),
        lazily=("classifier", "describe", "pipeline", "training.stacked"),
        types=("pipeline",),
    ),
    "soup": May(top=("classifier", "model", "runs", "trials")),
    "report": May(top=("config", "metrics", "runs", "stats", "trials")),
    "console": May(
        top=("metrics",),
        lazily=("training.callbacks",),
        types=(
            "classifier",
            "config",
            "data.check",
            "diagnose",
            "experiments",
            "export",
            "model.counts",
            "pipeline",
            "ready",
            "report.lab.rows",
            "training.callbacks",
            "training.prefix_cache",
            "trials",
        ),
    ),
    "track": May(top=("runs",), lazily=("training.callbacks",), types=("config", "pipeline", "training.callbacks")),
    "lab_view": May(top=("console",), lazily=("runs", "trials"), types=("experiments", "report.lab.rows", "soup", "trials")),
    "cli": May(top=("cli_lab", "outlet"), lazily=("",)),
    "outlet": May(),
    "cli_lab": May(lazily=("experiments", "lab_view", "report", "soup")),
}

FENCES: Mapping[str, tuple[str, ...]] = {
    "pandas": ("data.sources",),
    "datasets": ("data.sources",),
    "matplotlib": ("report.figures",),
    "jinja2": ("report.page",),
    "ray": ("experiments.on_ray",),
    "optuna": ("experiments.study", "experiments.storage"),
    "sqlalchemy": (),
    "psycopg2": ("experiments.storage",),
    "fastapi": (),
    "transformers": ("model.generic", "model.translate"),
    "nltk": (),
    "peft": ("model.generic", "model.generic_files", "model.peft_methods"),
    "pickle": ("data.pickle_machine", "data.safe_pickle"),
    "huggingface_hub": ("data.sources", "model.storage"),
    "typer": ("cli", "cli_lab"),
    "rich": ("console", "lab_view"),
    "yaml": ("config",),
    "pydantic": ("config", "model", "settings"),
    "sklearn": ("metrics",),
    "pyarrow": ("data",),
    "onnx": ("model.onnx_network",),
    "onnxscript": ("model.onnx_network",),
    "onnxruntime": ("model.onnx_network",),
    "tensorboard": ("track",),
    "wandb": ("track",),
    "mlflow": ("track",),
}
"""Packages that only these modules of ours may import."""

TORCH_AT_THE_TOP = (
    "diagnose.attribution",
    "model.build",
    "model.device",
    "model.dropout",
    "model.fused",
    "model.generic",
    "model.generic_files",
    "model.kernels",
    "model.lora",
    "model.network",
    "model.onnx_network",
    "model.peft_files",
    "model.peft_methods",
    "model.products",
    "model.soup",
    "model.stacked",
    "model.translate",
    "training",
)
"""Importing any other module must not load torch by itself; inside functions all may."""

DYNAMIC = ("__init__", "errors")
"""The only modules that may import by a computed name."""


@dataclass(frozen=True)
class Import:
    """One import of `target` (ours: relative to loralab) in a module; `where` is top, lazily or types."""

    module: str
    target: str
    ours: bool
    where: str
    line: int


def modules(root: Path) -> dict[str, str]:
    """Every module's text by its dotted name below the package: `__init__`, `data.values`; a package by its own name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path.read_text(encoding="utf-8")
    return found


@cache
def nodes(text: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(text)))


def imports(root: Path) -> list[Import]:
    texts = modules(root)
    known = frozenset(texts)
    packages = frozenset(name for name in texts if (root.joinpath(*name.split(".")) / "__init__.py").is_file())
    return [found for name, text in texts.items() for found in _imports(name, text, known, packages)]


@cache
def _imports(module: str, text: str, known: frozenset[str], packages: frozenset[str]) -> list[Import]:
    def ours(name: str, names: list[str]) -> Iterator[str]:
        """The modules that `from loralab.NAME import NAMES` loads: NAME.x where that is a module, else NAME."""
        for each in names:
            inner = f"{name}.{each}" if name else each
            yield inner if inner in known else name or "__init__"

    def visit(node: ast.AST, where: str) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                yield from visit(child, "types")
            for child in node.orelse:
                yield from visit(child, where)
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and where == "top":
            where = "lazily"
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                yield Import(
                    module, (rest or "__init__") if first == "loralab" else alias.name, first == "loralab", where, node.lineno
                )
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:  # relative: resolve against this module's package
                base = module.split(".") if module in packages else module.split(".")[:-1]
                base = base[: len(base) - (node.level - 1)]
                origin = ".".join(["loralab", *base, *([origin] if origin else [])])
            first, _, rest = origin.partition(".")
            if first == "loralab":
                for target in dict.fromkeys(ours(rest, [alias.name for alias in node.names])):
                    yield Import(module, target, True, where, node.lineno)
            else:
                yield Import(module, origin, False, where, node.lineno)
        elif isinstance(node, ast.Call):
            named = getattr(node.func, "id", "")  # network.eval() is no eval()
            called = named or getattr(node.func, "attr", "")
            if called in ("import_module", "__import__") or named in ("exec", "eval"):
                yield Import(module, f"<{called}>", False, where, node.lineno)
            elif named == "need" and node.args and isinstance(node.args[0], ast.Constant):  # errors.need imports what it names
                yield Import(module, str(node.args[0].value), False, where, node.lineno)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, where)

    return list(visit(nodes(text)[0], "top"))


def below(name: str, allowed: tuple[str, ...]) -> bool:
    return any(prefix in ("", name) or name.startswith(f"{prefix}.") for prefix in allowed)


def row_of(module: str) -> str | None:
    return module if module in TABLE else next((name for name in TABLE if module.startswith(f"{name}.")), None)


def misplaced_imports(root: Path) -> list[str]:
    """Imports of ours that the table does not allow."""
    wrong = [f"{name} is not in the table" for name in modules(root) if row_of(name) is None]
    for found in imports(root):
        row = row_of(found.module)
        if not found.ours or row is None or found.target == "errors" or found.target == row or found.target.startswith(f"{row}."):
            continue
        may = TABLE[row]
        allowed = may.top + (may.lazily if found.where == "lazily" else ()) + (may.types if found.where == "types" else ())
        if not below(found.target, allowed):
            wrong.append(f"{found.module}:{found.line} imports {found.target} ({found.where})")
    return wrong


def broken_fences(root: Path) -> list[str]:
    """Packages of others imported where they have no place."""
    wrong = []
    for found in imports(root):
        package = found.target.split(".")[0]
        if found.ours:
            continue
        if package in FENCES and not below(found.module, FENCES[package]):
            wrong.append(f"{found.module}:{found.line} imports {package}")
        if package in ("torch", "safetensors") and found.where == "top" and not below(found.module, TORCH_AT_THE_TOP):
            wrong.append(f"{found.module}:{found.line} imports {package} at its top")
        if found.target.startswith("<") and found.module not in DYNAMIC:
            wrong.append(f"{found.module}:{found.line} calls {found.target}")
    return wrong


def cycles(root: Path) -> list[str]:
    """Circles among modules as they run, and among stations (config, data, model, ...) whatever the import is for."""
    found = imports(root)
    running = {(f.module, f.target) for f in found if f.ours and f.where != "types"}
    stations = {(f.module.split(".")[0], f.target.split(".")[0]) for f in found if f.ours}
    return _circles(running) + _circles({(a, b) for a, b in stations if a != b and "__init__" not in (a, b)})


def _circles(edges: set[tuple[str, str]]) -> list[str]:
    """Take away, again and again, whoever imports nobody left; what remains goes in circles."""
    while True:
        importers = {a for a, _ in edges}
        left = {(a, b) for a, b in edges if b in importers}
        if left == edges:
            return [f"{a} → {b}" for a, b in sorted(edges) if a in {y for _, y in edges}]
        edges = left


def too_long(root: Path) -> list[str]:
    return [f"{module}{wrong}" for module, text in modules(root).items() for wrong in _too_long(text)]


@cache
def _too_long(text: str) -> list[str]:
    wrong = [f" has {lines} lines"] if (lines := len(text.splitlines())) > MOST_FILE_LINES else []
    for node in nodes(text):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > MOST_FUNCTION_LINES:
                wrong.append(f": {node.name} has {lines} lines")
    return wrong


@cache
def checkpoint_names() -> set[str]:
    """Hugging Face's own names inside checkpoints; the plain words `classifier` and `query` are not theirs alone."""
    names = set(EMBEDDINGS.values())
    for architecture in ARCHITECTURES.values():
        names |= {architecture.layers, architecture.head_dense, architecture.head_out, *architecture.layer.values()}
        names |= {*architecture.masked.values()}
    return {name for name in names if "." in name or "_" in name}


def stray_names(root: Path) -> list[str]:
    """Checkpoint names in the strings (not the docstrings) of any module but model.backbone."""
    texts = modules(root).items()
    return [f"{module}{wrong}" for module, text in texts if module != "model.backbone" for wrong in _stray_names(text)]


@cache
def _stray_names(text: str) -> list[str]:
    documentation = {id(node.value) for node in nodes(text) if isinstance(node, ast.Expr)}
    strings = [node for node in nodes(text) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    said = [(node.lineno, node.value) for node in strings if id(node) not in documentation]
    return [f":{line} says {name!r}" for line, value in said for name in checkpoint_names() if name in str(value)]


RULES = {
    "imports": misplaced_imports,
    "fences": broken_fences,
    "cycles": cycles,
    "lengths": too_long,
    "names": stray_names,
}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_package_keeps_the_rule(rule: str) -> None:
    assert RULES[rule](SOURCE) == []


def test_the_walk_sees_the_package() -> None:
    found = imports(SOURCE)
    assert len(modules(SOURCE)) > 30
    assert {f.where for f in found if f.ours} == {"top", "lazily", "types"}
    assert Import("pipeline", "training.engine", True, "top", 0) in {
        Import(f.module, f.target, f.ours, f.where, 0) for f in found if f.module == "pipeline"
    }
    assert all(row_of(name) for name in modules(SOURCE))
    assert set(TABLE) <= {name.split(".")[0] for name in modules(SOURCE)}


LONG_FUNCTION = "def long() -> None:\n" + "    print()\n" * 59
INJECTIONS = [
    ("imports", "model/lora.py", "from loralab.data.values import Encoded"),
    ("imports", "model/lora.py", "import loralab.config"),
    ("imports", "model/lora.py", "from ..training import loss"),
    ("imports", "data/encode.py", "from loralab.model import backbone"),
    ("imports", "data/encode.py", "def f():\n    from loralab.config import Config"),
    ("imports", "data/encode.py", "if TYPE_CHECKING:\n    from loralab.config import Config"),
    ("imports", "data/__init__.py", "from loralab.runs import atomic"),
    ("imports", "config.py", "class A:\n    def f(self):\n        from loralab import metrics"),
    ("imports", "config.py", "try:\n    from loralab.data import values\nexcept ImportError:\n    pass"),
    ("imports", "metrics.py", "from . import runs"),
    ("imports", "training/engine.py", "from loralab.model.network import Network"),
    ("imports", "training/engine.py", "from loralab.data.sources import load_source"),
    ("imports", "training/loss.py", "def f():\n    from loralab.metrics import scores"),
    ("imports", "runs.py", "from loralab.model.bundle import save_bundle"),
    ("imports", "pipeline.py", "from loralab.console import console"),
    ("imports", "classifier.py", "from loralab.training.engine import fit"),
    ("imports", "classifier.py", "from loralab.metrics import scores"),
    ("imports", "describe.py", "from loralab.model import device"),
    ("imports", "describe.py", "from loralab.training.loss import Loss"),
    ("imports", "console.py", "from loralab.pipeline import Plan"),
    ("imports", "errors.py", "from loralab.config import Config"),
    ("imports", "cli.py", "from loralab.config import load_config"),
    ("imports", "__init__.py", "from loralab.config import Config"),
    ("imports", "runs.py", "from loralab import load_config"),
    ("imports", "utils.py", "from pathlib import Path"),
    ("imports", "serve/app.py", "from pathlib import Path"),
    ("imports", "report/tables.py", "from loralab.model.counts import Counts"),
    ("fences", "report/tables.py", "import torch"),
    ("fences", "report/page.py", "from matplotlib.figure import Figure"),
    ("fences", "data/select.py", "import pandas as pd"),
    ("fences", "data/select.py", "def f():\n    from datasets import Dataset"),
    ("fences", "console.py", "import matplotlib.pyplot as plt"),
    ("fences", "pipeline.py", "import ray"),
    ("fences", "config.py", "from optuna import Trial"),
    ("fences", "cli.py", "import fastapi"),
    ("fences", "model/storage.py", "def f():\n    from transformers import AutoModel"),
    ("fences", "model/lora.py", "if TYPE_CHECKING:\n    import peft"),
    ("fences", "model/storage.py", "def f():\n    return need('transformers', 'generic')"),
    ("fences", "data/sources.py", "import pickle"),
    ("fences", "describe.py", "import torch"),
    ("fences", "data/batches.py", "from torch import Tensor"),
    ("fences", "model/counts.py", "import torch.nn.functional as F"),
    ("fences", "runs.py", "from importlib import import_module\nimport_module('torch')"),
    ("fences", "metrics.py", "__import__('torch')"),
    ("cycles", "model/backbone.py", "from loralab.model.counts import Counts"),
    ("cycles", "model/backbone.py", "def f():\n    from loralab.model.storage import Base"),
    ("cycles", "config.py", "from loralab import runs"),
    ("cycles", "data/values.py", "if TYPE_CHECKING:\n    from loralab.training.loss import Loss"),
    ("lengths", "metrics.py", LONG_FUNCTION),
    ("lengths", "metrics.py", "x = 1\n" * 400),
    ("names", "describe.py", "x = 'encoder.layer.0'"),
    ("names", "model/storage.py", "x = 'lm_head.dense'"),
    ("names", "model/network.py", "x = f'roberta.attention.self.query.{1}'"),
]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layers") / "loralab"
    shutil.copytree(SOURCE, root, ignore=shutil.ignore_patterns("__pycache__", "*.csv"))
    return root


@contextmanager
def injected(path: Path, text: str) -> Iterator[None]:
    """Write `text` to the end of a file, in a folder of its own where there is none, and take it away again."""
    new_folder, before = not path.parent.is_dir(), path.read_text(encoding="utf-8") if path.is_file() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{before or ''}\n\n{text}\n", encoding="utf-8")
    yield
    if before is not None:
        path.write_text(before, encoding="utf-8")
    elif new_folder:
        shutil.rmtree(path.parent)
    else:
        path.unlink()


@pytest.mark.parametrize(("rule", "file", "text"), INJECTIONS, ids=[f"{rule}-{i}" for i, (rule, _, _) in enumerate(INJECTIONS)])
def test_a_line_that_breaks_the_rule_is_found(copied: Path, rule: str, file: str, text: str) -> None:
    before = RULES[rule](copied)
    with injected(copied / file, text):
        after = RULES[rule](copied)
    assert len(after) > len(before), "the rule does not see it"
    assert RULES[rule](copied) == before


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("model/lora.py", "from loralab.model.counts import Counts"),
        ("model/lora.py", "from loralab.errors import RunFailed"),
        ("describe.py", "def f():\n    import torch\n    from loralab.model import device"),
        ("cli.py", "def f():\n    from loralab.training import loss"),
        ("metrics.py", LONG_FUNCTION.removesuffix("    print()\n")),
        ("metrics.py", "def f():\n    'encoder.layer is said in a docstring only'"),
    ],
)
def test_a_line_that_keeps_the_rules_is_let_through(copied: Path, file: str, text: str) -> None:
    before = {name: rule(copied) for name, rule in RULES.items()}
    with injected(copied / file, text):
        after = {name: rule(copied) for name, rule in RULES.items()}
    assert after == before
