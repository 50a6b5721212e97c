"""Record folders and logs of our own making, and what facts hold of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.facts.build_runs import build_runs
from harness.facts.logfile import read_log
from harness.facts.runs import Run
from harness.facts.submission import Submission, read
from harness.model import Fact, Located

SCRIPT = "import os\n\nseed = int(os.environ.get('SEED', '1337'))\nprint(f'seed:{seed}')\n"
RULER = "=" * 100


def log(seed: int = 42, *, bpb: float = 1.25, code: int = len(SCRIPT), source: str = "") -> str:
    head = f"{source}\n{RULER}\nRunning Python 3.12\n{RULER}\n" if source else ""
    return (
        f"{head}train_loader:dataset:demo train_shards:3\nval_loader:shards pattern=v_*.bin tokens:1024\n"
        "model_params:9000\nworld_size:8 grad_accum_steps:1\nlr:0.1 warmup:2\n"
        f"seed:{seed}\n"
        "step:0/50 val_loss:6.0 val_bpb:4.0 train_time:0ms step_avg:0.01ms\n"
        "step:10/50 train_loss:3.0 train_time:1000ms step_avg:100.00ms\n"
        "step:12/50 val_loss:2.9 val_bpb:1.3 train_time:1200ms step_avg:100.00ms\n"
        "stopping_early: wallclock_cap train_time:1201ms step:12/50\n"
        "DIAGNOSTIC post_ema val_loss:2.8 val_bpb:1.20 eval_time:500ms\n"
        f"Serialized model: 99999 bytes\nCode size: {code} bytes\nTotal submission size: 199999 bytes\n"
        f"Serialized model int8+zlib: 5000 bytes\nTotal submission size int8+zlib: {5000 + code} bytes\n"
        "final_roundtrip val_loss:2.9000 val_bpb:1.3000 eval_time:2000ms\n"
        f"final_sliding_window val_loss:2.8 val_bpb:{bpb:.4f} eval_time:7000ms\n"
        f"final_sliding_window_exact val_loss:2.80000000 val_bpb:{bpb:.8f}\n"
    )


def run_of(text: str, path: str = "train_seed42.log") -> Run:
    parsed = read_log(text.encode(), path)
    assert len(parsed) == 1
    return build_runs(parsed)[0]


def value(fact: Fact[Any]) -> Any:
    return fact.value if isinstance(fact, Located) else None


def line(fact: Fact[Any]) -> int | None:
    assert isinstance(fact, Located)
    return fact.location.line


def record(root: Path, **files: str | bytes) -> Submission:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(root)


MANIFEST = json.dumps({"name": "A", "author": "x", "github_id": "y", "date": "2026-03-19", "val_bpb": 1.25})
