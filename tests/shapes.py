"""Small scripts of the challenge's form, put together for tests of what reading accuses, and the audit of one."""

from __future__ import annotations

import json
from pathlib import Path

from harness import audit
from harness.checks import RULES
from harness.model import Evidence, Verdict

CODES = frozenset(
    rule.code for rule in RULES if rule.code.startswith(("PG31", "PG6")) and rule.needs is Evidence.FOLDER
)
BASE = """
import copy, math, os, socket, sys
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
TRAIN, VAL = "data/fineweb_train_*.bin", "data/fineweb_val_*.bin"
def load(pattern): return torch.from_numpy(read_shards(pattern))
def nll(net, ids): return F.cross_entropy(net(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
class Net(nn.Module):
    def forward(self, x): return self.head(self.body(x))
def fit(net, tokens):
    opt = torch.optim.Adam(net.parameters())
    for part in tokens.split(1025):
        nll(net, part[None]).mean().backward(); opt.step(); opt.zero_grad()
def score(net, tokens):
    with torch.no_grad(): return sum(nll(net, part[None]).sum().item() for part in tokens.split(1025)) / tokens.numel()
"""
MAIN = """
def main():
    net = Net()
    fit(net, load(TRAIN))
    held = load(VAL)
    {before}
    loss = {score}
    print(f"final val_bpb:{{loss:.6f}}")
main()
"""


def script(functions: str = "", before: str = "pass", score: str = "score(net, held)") -> str:
    """A script of its own functions, what its `main` does before the score, and the score."""
    return BASE + functions + MAIN.format(before=before, score=score)


def fails(folder: Path, text: str, command: str = "torchrun train_gpt.py") -> set[str]:
    """The rules of data and legality that fail on a folder with one script."""
    files = {
        "train_gpt.py": text,
        "README.md": f"# A run\n\n```\n{command}\n```\n",
        "submission.json": json.dumps({"name": "A run", "author": "A", "val_bpb": 1.2, "date": "2026-04-01"}),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    audited = audit.audit_folder(folder, audit.Options(CODES))
    assert audited.report is not None
    return {finding.rule for finding in audited.report.findings if finding.verdict is Verdict.FAIL}
