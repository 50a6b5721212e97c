"""What is decided before anything runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from harness.model import HarnessError
from harness.reproduce import claimed, dataset, declaration, environment, outcome, plan, trusted
from harness.reproduce.executors.base import Ending
from harness.reproduce.plan import Request
from harness.sources import evidence
from harness.sources.folder import walk
from tests import factories
from tests.factories import at
from tests.fakescript import make_data, make_folder, make_plan, request


def make(folder: Path, facts: Any = None, **changes: Any) -> plan.Plan:
    return plan.make(walk(folder), facts or factories.submission(), dataclasses.replace(Request(), **changes))


def test_the_claim_decides_what_is_not_asked_for(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    document = json.loads((folder / "submission.json").read_text(encoding="utf-8"))
    document["reproduction"] |= {"data": "tiny_sp1024", "environment": {"MAX_WALLCLOCK_SECONDS": "60", "LR": "1"}}
    (folder / "submission.json").write_text(json.dumps(document), encoding="utf-8")
    one_process = factories.submission(runs=(factories.run(1, world_size=at(1)),))
    made = make(folder, one_process, data=make_data(tmp_path))
    assert made.seeds == (1, 2, 3)
    assert made.limits.train_seconds == 60.0
    assert made.environment == {"MAX_WALLCLOCK_SECONDS": "60", "LR": "1"}
    assert (made.differences, made.unknown) == ((), "")
    shrunk = make(folder, one_process, data=made.data and made.data.shards, wallclock_seconds=5.0, steps=9)
    assert shrunk.environment["ITERATIONS"] == "9"
    assert shrunk.differences == (
        "trained for at most 5 s here, 60 s for the claim",
        "trained for at most 9 steps by request",
    )
    changed = make(folder, one_process, data=tmp_path / "data", environment={"LR": "2", "NEW": "1"})
    assert changed.differences == ("LR set by request", "NEW set by request")


def test_the_same_plan_has_the_same_hash_whatever_the_seeds(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    hashes = {evidence.canonical_sha256(make_plan(folder, seeds=seeds).settings()) for seeds in ((1,), (1, 2))}
    assert len(hashes) == 1
    assert evidence.canonical_sha256(make_plan(folder, steps=4).settings()) not in hashes


def test_without_a_limit_of_its_own_a_script_may_not_run_for_ever(tmp_path: Path) -> None:
    made = make(make_folder(tmp_path), wallclock_seconds=0.0)
    assert made.environment["MAX_WALLCLOCK_SECONDS"] == "0"
    assert made.limits.train_seconds == plan.UNLIMITED_SECONDS


def test_undeclared_data_is_unknown_and_no_data_a_difference(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, declared={})
    assert make_plan(folder, data=make_data(tmp_path)).unknown.endswith(
        "does not declare which data its claim is about"
    )
    assert "no data folder was given" in make_plan(folder).differences


def test_a_folder_without_script_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "train_gpt.py").unlink()
    with pytest.raises(HarnessError, match="no script train_gpt"):
        make_plan(folder)


def test_demo_data_is_made_where_it_is_missing(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, declared={"script": "train_gpt.py", "data": "tiny_sp1024"})
    asked: list[tuple[str, Path | None]] = []

    def demo(name: str, root: Path | None) -> Path | None:
        asked.append((name, root))
        return make_data(tmp_path)

    made = plan.make(walk(folder), factories.blank(), request(demo=demo))
    assert asked == [("tiny_sp1024", None)]
    assert made.data is not None
    assert made.data.name == "tiny_sp1024"
    with pytest.raises(HarnessError, match="needs the dataset tiny_sp1024: give its root folder"):
        make_plan(folder)


def test_settings_of_the_logs_are_used_where_they_differ_from_the_defaults() -> None:
    keys = [
        ("MATRIX_LR", "0.02"),
        ("VOCAB_SIZE", "1024"),
        ("TIED", "0"),
        ("SEED", "1"),
        ("DATA_PATH", "x"),
        ("NEW", None),
    ]
    script = factories.script(environment=tuple(at(key) for key in keys))
    config = {
        "matrix_lr": at("0.04"),
        "vocab_size": at("1024"),
        "tied": at("True"),
        "seed": at("5"),
        "data_path": at("/d"),
    }
    runs = tuple(factories.run(seed, config=config) for seed in (1, 2))
    facts = factories.submission(runs=runs, package=factories.package(entry=at(script)))
    assert claimed.environment(facts) == {"MATRIX_LR": "0.04", "TIED": "1"}
    other = factories.run(2, config=config | {"matrix_lr": at("0.05")})
    disagreeing = dataclasses.replace(facts, runs=(runs[0], other))
    assert claimed.environment(disagreeing) == {"TIED": "1"}
    assert claimed.environment(factories.blank()) == {}
    shown = dataclasses.replace(facts, switched={"NEW": "1", "VOCAB_SIZE": "9"}, guessed={"SEED": "2"})
    assert claimed.environment(shown) == {"MATRIX_LR": "0.04", "TIED": "1"}
    script = factories.script(environment=(at(("ADAPT", "0")), at(("ROUNDS", "0"))))
    adapted = dataclasses.replace(shown, package=factories.package(entry=at(script)), switched={"ADAPT": "1"})
    assert claimed.environment(dataclasses.replace(adapted, guessed={"ROUNDS": "2"})) == {"ADAPT": "1"}


def test_claimed_limit_and_processes() -> None:
    logged = factories.run(1, config={"max_wallclock_seconds": at("600.000")})
    assert claimed.wallclock_seconds(factories.submission(runs=(logged,)), {}) == 600.0
    assert claimed.wallclock_seconds(factories.submission(runs=(logged,)), {"MAX_WALLCLOCK_SECONDS": "60"}) == 60.0
    assert claimed.wallclock_seconds(factories.blank(), {}) is None
    assert claimed.processes(factories.submission()) == 8
    assert claimed.processes(factories.blank()) is None


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONPATH", "HOME", "PATH"])
def test_a_submission_cannot_steer_the_interpreter(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path)
    document = json.loads((folder / "submission.json").read_text(encoding="utf-8"))
    document["reproduction"]["evaluate"] = {name: "/x"}
    (folder / "submission.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(HarnessError, match=f"reproduction/evaluate: {name} cannot be set"):
        declaration.read(walk(folder))


def test_a_broken_declaration_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, declared={"script": "../train_gpt.py"})
    with pytest.raises(HarnessError, match=r"submission\.json#/reproduction/script"):
        declaration.read(walk(folder))


@pytest.mark.parametrize(
    ("pair", "told"), [("SEED=1", "use --seeds"), ("LR", "expected KEY=VALUE"), ("PYTHONPATH=x", "cannot be set")]
)
def test_settings_that_are_refused(pair: str, told: str) -> None:
    with pytest.raises(HarnessError, match=told):
        environment.parse_pairs([pair])
    assert environment.parse_pairs(["LR=0.1", "TEXT=a=b"]) == {"LR": "0.1", "TEXT": "a=b"}


def test_datasets_are_found_by_name_or_by_folder(tmp_path: Path) -> None:
    root = make_data(tmp_path)
    found = dataset.locate(root, None)
    assert found == dataset.locate(root / "datasets" / "tiny_sp1024", None) == dataset.locate(root, "tiny_sp1024")
    assert found.environment(root)["TOKENIZER_PATH"].endswith("tiny_1024_bpe.model")
    with pytest.raises(HarnessError, match=r"no dataset other \(there: tiny_sp1024\)"):
        dataset.locate(root, "other")
    with pytest.raises(HarnessError, match="no such data folder"):
        dataset.locate(tmp_path / "nowhere", None)


def test_a_run_finds_its_data_by_relative_paths(tmp_path: Path) -> None:
    (tmp_path / "seed-1" / "train").mkdir(parents=True)
    view = dataset.whole(dataset.locate(make_data(tmp_path), None), tmp_path / "seed-1" / "data")
    assert view.environment(tmp_path / "seed-1" / "train") == {
        "DATA_PATH": "../data/datasets/tiny_sp1024",
        "TOKENIZER_PATH": "../data/tokenizers/tiny_1024_bpe.model",
    }
    assert sorted(path.name for path in view.shards.iterdir()) == ["fineweb_train_000000.bin", "fineweb_val_000000.bin"]


def test_a_view_holds_no_training_data(tmp_path: Path) -> None:
    root = make_data(tmp_path)
    (root / "tokenizers" / "tiny_8192_bpe.model").write_bytes(b"other")
    view = dataset.without_training(dataset.locate(root, None), tmp_path / "view")
    files = sorted(path.relative_to(tmp_path / "view").as_posix() for path in (tmp_path / "view").rglob("*.*"))
    assert files == ["datasets/tiny_sp1024/fineweb_val_000000.bin", "tokenizers/tiny_1024_bpe.model"]
    assert not any(path.is_symlink() for path in view.shards.iterdir())


def test_a_dataset_hash_follows_its_content(tmp_path: Path) -> None:
    root = make_data(tmp_path)
    before = dataset.locate(root, None).sha256()
    (root / "datasets" / "tiny_sp1024" / "fineweb_val_000000.bin").write_bytes(b"other")
    assert dataset.locate(root, None).sha256() != before


@pytest.mark.parametrize(
    ("tail", "code", "detail", "lacks"),
    [
        (["Traceback (most recent call last):", '  File "a"', "ValueError: bad"], 1, "ValueError: bad", ""),
        (
            [
                "[rank0]: Traceback (most recent call last):",
                "[rank0]: torch.AcceleratorError: no NVIDIA driver",
                "Traceback (most recent call last):",
                "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
            ],
            1,
            "torch.AcceleratorError: no NVIDIA driver",
            "a CUDA device",
        ),
        (
            ["Traceback (most recent call last):", "ModuleNotFoundError: No module named 'flash_attn'"],
            1,
            "ModuleNotFoundError: No module named 'flash_attn'",
            "the package flash_attn",
        ),
        (
            ["Traceback (most recent call last):", "ModuleNotFoundError: No module named 'helper.x'"],
            1,
            "ModuleNotFoundError: No module named 'helper.x'",
            "",
        ),
        (["usage: \x1b[31mno", ""], 2, "usage: \ufffd[31mno", ""),
        ([], -11, "no output, ended by SIGSEGV", ""),
    ],
)
def test_last_words(tail: list[str], code: int, detail: str, lacks: str) -> None:
    ending = Ending(code, "", overdue=False, seconds=1.0, peak_memory_bytes=1, survivors=0, tail=tuple(tail))
    failure = outcome.of_process(ending, frozenset({"helper"}), accelerators=0)
    assert failure == outcome.Failure("crash", detail, lacks)


def test_a_crash_of_cuda_where_there_is_a_device_is_the_scripts_own() -> None:
    assert outcome.machine_lacks("RuntimeError: CUDA error", frozenset(), accelerators=1) == ""


def test_trust_is_by_hash_of_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = make_folder(tmp_path) / "train_gpt.py"
    assert trusted.compute(tmp_path) == {"record/train_gpt.py": evidence.code_files(walk(script.parent))[0].sha256}
    trusted.write(tmp_path, tmp_path / "list.json")
    known = frozenset(json.loads((tmp_path / "list.json").read_text(encoding="utf-8"))["scripts"].values())
    monkeypatch.setattr(trusted, "load", lambda: known)
    assert trusted.is_trusted(evidence.code_files(walk(script.parent)))
    (script.parent / "helper.py").write_text("print()", encoding="utf-8")
    assert not trusted.is_trusted(evidence.code_files(walk(script.parent)))
    assert not trusted.is_trusted(())


def test_the_list_of_our_own_scripts_is_current() -> None:
    submissions = Path(__file__).parents[1] / "submissions"
    assert trusted.load() == frozenset(trusted.compute(submissions).values())
