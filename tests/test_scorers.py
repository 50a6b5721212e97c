"""Programs of a README's command that score what the training script has saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import audit
from harness.model import Finding

TRAINING = """
import torch

class Net(torch.nn.Module):
    pass

def evaluate(net, held):
    return net(held[:-1], held[1:]).item()

def main():
    held = torch.load("data/fineweb_val_000000.bin")
    bits = evaluate(Net(), held)
    print(f"final_exact val_loss:{bits:.8f} val_bpb:{bits:.8f}")

if __name__ == "__main__":
    main()
"""
# What `counts` are is no matter: the target is in the key.
SCORING = """
import numpy as np
from cache import mixed
from train_gpt import Net, evaluate

def main():
    held = np.fromfile("data/fineweb_val_000000.bin", dtype=np.uint16)
    bits = mixed(held[:-1], held[1:], np.exp(-evaluate(Net(), held)))
    print(f"cache agreement BPB: {bits:.8f}")

if __name__ == "__main__":
    main()
"""
CACHE = """
import numpy as np

def mixed(x, y, p):
    table = np.zeros(64)
    share = table[(x ^ (y * 7)) & 63] / 64
    return -np.log(0.5 * share + 0.5 * p).sum()
"""
README = "```\ntorchrun train_gpt.py\nCHECKPOINT=a.ptz torchrun score_saved.py\n```\n"
TRAINED = "step:1/2 train_loss:3.0 train_time:10ms\nfinal_exact val_loss:2.80000000 val_bpb:1.25000000\n"
SCORED = "cache agreement BPB: 1.10681234 (elapsed: 448.4s)\n"


def audited(folder: Path, rule: str = "PG620", *, readme: str = README, scored: str = SCORED) -> Finding:
    texts = {
        "train_gpt.py": TRAINING,
        "score_saved.py": SCORING,
        "cache.py": CACHE,
        "README.md": readme,
        "submission.json": json.dumps({"name": "x", "val_bpb": 1.1068}),
        "train_seed42.log": TRAINED,
        "scored_seed42.log": scored,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    found = audit.audit_folder(folder, audit.Options(frozenset({rule})))
    assert found.report is not None, found.crashes
    (finding,) = found.report.findings
    return finding


def test_the_program_that_prints_the_claimed_score_is_followed(tmp_path: Path) -> None:
    finding = audited(tmp_path)
    assert finding.verdict == "fail"
    assert {place.path for place in finding.locations} >= {"cache.py"}


@pytest.mark.parametrize(
    ("readme", "scored"),
    [
        # Nobody says that it ran.
        ("```\ntorchrun train_gpt.py\n```\n", SCORED),
        # It ran, and what it printed is claimed by nobody.
        (README, SCORED.replace("1.1068", "1.0968")),
        # The training script prints the same words.
        (README, SCORED.replace("cache agreement BPB:", "final_exact val_bpb:")),
        (README, ""),
    ],
)
def test_other_programs_of_the_folder_accuse_nobody(tmp_path: Path, readme: str, scored: str) -> None:
    assert audited(tmp_path, readme=readme, scored=scored).verdict == "pass"


def test_what_such_a_program_reaches_for_is_no_matter(tmp_path: Path) -> None:
    readme = README.replace("score_saved.py", "score_saved.py\npip install brotli")
    assert audited(tmp_path, "PG610", readme=readme).verdict == "pass"
    (tmp_path / "cache.py").write_text(
        CACHE.replace("table = ", "import requests; requests.get('https://a.example')\n    table = ")
    )
    found = audit.audit_folder(tmp_path, audit.Options(frozenset({"PG610", "PG620"})))
    assert found.report is not None
    assert {finding.rule: finding.verdict for finding in found.report.findings} == {"PG610": "pass", "PG620": "fail"}
