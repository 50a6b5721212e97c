"""The module `audit`: nothing where nobody listens, lines of the ledger under the probe, other modules left alone."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from reference_model.hooks import Hooks, audit_hooks
from tests.childruns import run
from tests.tracing import unlike, write_tokens

DOCUMENT = Path(__file__).parents[1] / "docs" / "adapter.md"
SCRIPT = """
import torch
try:
    import audit
except ImportError:
    audit = None
losses = torch.tensor([1.0, 2.0, 0.5], requires_grad=True)
if audit is None or not hasattr(audit, "score"):
    print("not told")
else:
    audit.score(torch.tensor([5, 6, 7]), losses, logits=torch.zeros(3, 11))
    audit.score([3, 9], [0.25, 0.5])
    audit.update(range(3, 8))
    print("told")
"""


def shipped() -> str:
    """The module as the documentation shows it."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (module,) = [block for block in blocks if "PROTOCOL" in block]
    return str(module)


def traced(folder: Path) -> tuple[list[dict[str, object]], str]:
    shard = write_tokens(folder / "val.bin", unlike(100))
    ran = run(folder, SCRIPT, trace=True, experiment={"validation": [str(shard)]})
    assert ran.status == 0, ran.output
    lines = [{name: event[name] for name in ("what", "positions", "sum", "vocabulary")} for event in ran.of("told")]
    return lines, ran.output


TOLD = [
    {"what": "score", "positions": [[5, 8]], "sum": 3.5, "vocabulary": 11},
    {"what": "score", "positions": [[3, 4], [9, 10]], "sum": 0.75, "vocabulary": None},
    {"what": "update", "positions": [[3, 8]], "sum": None, "vocabulary": None},
]


def test_the_probe_hears_the_module_that_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "audit.py").write_text(shipped(), encoding="utf-8")
    assert traced(tmp_path) == (TOLD, "told\n")


def test_the_probe_offers_it_to_a_single_file_too(tmp_path: Path) -> None:
    assert traced(tmp_path) == (TOLD, "told\n")


def test_another_module_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "audit.py").write_text("RATES = 3\n", encoding="utf-8")
    assert traced(tmp_path) == ([], "not told\n")


def test_nothing_is_replaced_where_nothing_is_traced(tmp_path: Path) -> None:
    assert run(tmp_path, SCRIPT).output == "not told\n"
    (tmp_path / "audit.py").write_text(shipped(), encoding="utf-8")
    ran = run(tmp_path, SCRIPT)
    assert (ran.output, ran.of("told")) == ("told\n", [])


def test_the_shipped_module_does_nothing() -> None:
    names: dict[str, object] = {}
    exec(shipped(), names)  # noqa: S102 - our own documentation
    module = SimpleNamespace(**names)
    assert module.PROTOCOL == "audit/1"
    assert module.score(torch.tensor([1]), torch.tensor([0.5]), logits=None) is None
    assert module.update([1, 2]) is None


def test_the_reference_model_tells_only_that_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    assert audit_hooks() == Hooks()
    heard: list[object] = []
    module = SimpleNamespace(PROTOCOL="audit/1", score=lambda *told: heard.append(told), update=heard.append)
    monkeypatch.setitem(sys.modules, "audit", module)
    hooks = audit_hooks()
    assert hooks.on_score is not None
    hooks.on_score(torch.tensor([1]), torch.tensor([0.5]))
    assert len(heard) == 1
    monkeypatch.setitem(sys.modules, "audit", SimpleNamespace(score=print))
    assert audit_hooks() == Hooks()
