"""A tiny script in the record format, without torch, and the pieces that run it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.reproduce import plan, run
from harness.reproduce.executors.base import Caps
from harness.reproduce.executors.local import LocalExecutor
from harness.reproduce.plan import Plan, Request
from harness.reproduce.progress import Silent
from harness.reproduce.seed import Machine
from harness.sources.folder import walk
from tests import factories

# BEHAVIOUR changes one thing at a time; everything else stays an ordinary run.
SCRIPT = """
import glob, hashlib, os, pathlib, sys, time
behaviour = os.environ.get("BEHAVIOUR", "")
seed = int(os.environ["SEED"])
steps = int(os.environ.get("ITERATIONS", "3"))
data = os.environ.get("DATA_PATH", "")
train = sorted(glob.glob(data + "/fineweb_train_*.bin"))
weights, packed = pathlib.Path("final_model.pt"), pathlib.Path("final_model.ptz")
mode = "eval" if os.environ.get("EVAL_ONLY") else "repack" if os.environ.get("REPACK_ONLY") else "train"

def pack():
    salt = str(time.monotonic()) if behaviour == "repack differs" else ""
    packed.write_bytes(hashlib.sha256(weights.read_bytes() + salt.encode()).digest() * 10)
    print(f"Serialized model int6+zstd: {packed.stat().st_size} bytes")
    print(f"Total submission size int6+zstd: {packed.stat().st_size + pathlib.Path(__file__).stat().st_size} bytes")

def score():
    if behaviour == "evaluation needs training data" and data and not train:
        raise FileNotFoundError("no training shards")
    bpb = 1.5 + int.from_bytes(packed.read_bytes()[:2], "big") * 1e-6
    if behaviour == "rescore differs" and mode == "eval":
        bpb += 0.01
    text = "nan" if behaviour == "nan" else f"{bpb:.8f}"
    print(f"final_int6_roundtrip_exact val_loss:{bpb * 1.5:.8f} val_bpb:{text}")

print(f"train_batch_tokens:1000 iterations:{steps}")
print(f"seed:{seed}")
if mode == "repack":
    pack()
elif mode == "eval":
    score()
else:
    if data:
        assert train, "no training shards"
    if behaviour == "daemon" and os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            pathlib.Path("daemon.pid").write_text(str(os.getpid()))
            time.sleep(60)
        os._exit(0)
    if behaviour == "crash":
        raise RuntimeError("something broke")
    if behaviour == "cuda":
        raise RuntimeError("CUDA is required")
    if behaviour == "hang":
        time.sleep(60)
    if behaviour == "flood":
        while True:
            print("x" * 1000)
    for step in range(1, steps + 1):
        time.sleep(0.02)
        print(f"step:{step}/{steps} train_loss:{6.0 / step:.4f} train_time:{step * 20}ms step_avg:20.00ms")
    if behaviour == "environment":
        pathlib.Path("environment.txt").write_text(repr(dict(os.environ)))
    weights.write_bytes(str(seed).encode() * 100)
    if behaviour != "no artifact":
        pack()
    if behaviour == "no metric":
        sys.exit(0)
    time.sleep(0.05)
    if behaviour == "no artifact":
        print("final_int6_roundtrip_exact val_loss:2.25 val_bpb:1.50000000")
    else:
        score()
"""
DECLARED = {
    "script": "train_gpt.py",
    "artifact": "final_model.ptz",
    "weights": "final_model.pt",
    "evaluate": {"EVAL_ONLY": "1"},
    "repack": {"REPACK_ONLY": "1"},
}


def make_folder(
    root: Path, behaviour: str = "", declared: Mapping[str, Any] | None = None, script: str = SCRIPT
) -> Path:
    """A record folder whose script behaves in one way."""
    folder = root / "record"
    folder.mkdir()
    (folder / "train_gpt.py").write_text(script, encoding="utf-8")
    reproduction = dict(DECLARED if declared is None else declared)
    if reproduction:
        reproduction["environment"] = {"BEHAVIOUR": behaviour}
    manifest = {"name": "fake", "author": "a", "github_id": "a", "date": "2026-04-01", "val_bpb": 1.5}
    manifest |= {"reproduction": reproduction} if reproduction else {}
    (folder / "submission.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def make_data(root: Path) -> Path:
    """A data root with one training and one validation shard and a tokenizer; their content is never read."""
    shards = root / "data" / "datasets" / "tiny_sp1024"
    shards.mkdir(parents=True)
    for split in ("train", "val"):
        (shards / f"fineweb_{split}_000000.bin").write_bytes(split.encode())
    (root / "data" / "tokenizers").mkdir()
    (root / "data" / "tokenizers" / "tiny_1024_bpe.model").write_bytes(b"model")
    return root / "data"


def request(**changes: Any) -> Request:
    """Limits that a test can wait for."""
    limits = {"startup_seconds": 20.0, "wallclock_seconds": 20.0, "eval_seconds": 20.0, "grace_seconds": 1.0}
    return Request(**({"seeds": (1,)} | limits | changes))


def make_plan(folder: Path, **changes: Any) -> Plan:
    return plan.make(walk(folder), factories.blank(), request(**changes))


def machine(caller: Mapping[str, str] | None = None, **caps: int) -> Machine:
    caller = {"PATH": os.environ["PATH"]} if caller is None else caller
    return Machine(LocalExecutor(), Caps(**caps), caller, 0)


def reproduce(made: Plan, directory: Path, on: Machine | None = None) -> None:
    run.run(made, directory, on or machine(), Silent())


def read_run(directory: Path, seed: int = 1) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / f"seed-{seed}" / "run.json").read_text(encoding="utf-8"))
    return document
