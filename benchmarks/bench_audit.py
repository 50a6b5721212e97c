"""The audit against the least it has to do: reading the files and parsing the scripts with `ast`, in one run.

    python benchmarks/bench_audit.py [PATH] [--rounds 3]

PATH is a record folder or a directory of them, for example a checkout of the competition; without it, 32 folders of
ordinary size are made. Prints seconds (best of the rounds) and their ratio; the cold start of one folder; the time
for a quarter, half and all folders; and the gain of several processes.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.audit import Options, audit_folder, audit_folders, available_processors
from harness.checks import RULES
from harness.sources.discover import discover

FOLDERS = 32
SEEDS = 3
# Functions and steps that give a script and a log of the size that records have.
SCRIPT_FUNCTIONS = 90
LOG_STEPS = 250
OPTIONS = Options(frozenset(rule.code for rule in RULES))

_FUNCTION = '''
def block_{n}(x, weight, scale=float(os.environ.get("SCALE_{n}", "{n}"))):
    """One of many blocks of the same shape."""
    batch, length, width = x.shape
    hidden = (x @ weight[{n}].T).view(batch, length, -1, 64) * scale
    gate = [value + {n} for value in range(batch) if value % 2 == 0]
    for index, part in enumerate(gate):
        if index > length:
            hidden = hidden + part * scale - (index + {n}) / max(width, 1)
        else:
            hidden[index] = hidden.mean(dim=-1, keepdim=True) ** 2
    return {{"hidden": hidden, "gate": gate, "name": f"block {{index}} of {n}"}}
'''


def generated(root: Path) -> None:
    """Make folders of ordinary size."""
    script = '"""A script of ordinary size."""\n\nimport os\n\n'
    script += "\n".join(_FUNCTION.format(n=number) for number in range(SCRIPT_FUNCTIONS))
    for number in range(FOLDERS):
        folder = root / "records" / "track_10min_16mb" / f"run{number:03d}"
        folder.mkdir(parents=True)
        (folder / "train_gpt.py").write_text(script, encoding="utf-8")
        (folder / "submission.json").write_text('{"name": "made", "val_bpb": 1.2}', encoding="utf-8")
        (folder / "README.md").write_text("# Made\n\nval_bpb: 1.2\n" + "Words of a README.\n" * 100, encoding="utf-8")
        for seed in range(SEEDS):
            (folder / f"train_seed{seed}.log").write_text(_log(script, seed), encoding="utf-8")


def _log(script: str, seed: int) -> str:
    steps = "\n".join(
        f"step:{step}/20000 train_loss:{2 + 1 / step:.4f} train_time:{46 * step}ms step_avg:46.00ms"
        for step in range(1, LOG_STEPS + 1)
    )
    evaluation = "\n".join(f"ttp: b{done}/780 bl:2.3 bb:1.07 rl:2.3 rb:1.07 dl:9999" for done in range(1, 200))
    final = f"final_exact val_loss:2.02 val_bpb:1.20{seed} eval_time:70123ms"
    return f"{script}\n{'=' * 100}\nRunning Python 3.12\nseed:{seed}\n{steps}\n{evaluation}\n{final}\n"


def floor(folders: Sequence[Path]) -> None:
    """Read every file and parse every script."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                if path.suffix == ".py":
                    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
                        ast.parse(data)


def audited(folders: Sequence[Path]) -> None:
    """Audit in this process."""
    for folder in folders:
        audit_folder(folder, OPTIONS)


def cold(folder: Path) -> None:
    """Audit one folder from the command line."""
    subprocess.run([sys.executable, "-m", "harness", "audit", str(folder)], stdout=subprocess.DEVNULL, check=False)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(folders: Sequence[Path], rounds: int) -> None:
    """Print everything; the two sides of a ratio take turns."""
    audited(folders[:1])
    least = whole = float("inf")
    for _ in range(rounds):
        least = min(least, seconds(lambda: floor(folders)))
        whole = min(whole, seconds(lambda: audited(folders)))
    print(f"read and parse, {len(folders)} folders:  {least:8.3f} s")
    print(f"audit, one process:            {whole:8.3f} s   ratio {whole / least:.2f}")
    largest = max(folders, key=lambda folder: sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()))
    print(f"largest folder, cold start:    {min(seconds(lambda: cold(largest)) for _ in range(rounds)):8.3f} s")
    for part in (4, 2, 1):
        some = folders[::part]
        each = min(seconds(lambda: audited(some)) for _ in range(rounds)) / len(some)  # noqa: B023 - called at once
        print(f"{len(some):5d} folders:                 {1_000 * each:8.1f} ms each")
    spread = min(seconds(lambda: list(audit_folders(folders, OPTIONS))) for _ in range(rounds))
    print(f"audit, {available_processors()} processes:            {spread:8.3f} s   {whole / spread:.2f} times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parsed = parser.parse_args()
    warnings.simplefilter("ignore", SyntaxWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    with tempfile.TemporaryDirectory() as temporary:
        if parsed.path is None:
            generated(Path(temporary))
        measure(discover(parsed.path or Path(temporary)).folders, parsed.rounds)


if __name__ == "__main__":
    main()
