"""Whole record folders of our own making, read into facts."""

from __future__ import annotations

import base64
import datetime as dt
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.facts.build_claims import build_claims
from harness.facts.build_runs import build_runs
from harness.facts.claims import DeclaredSplit, ManifestClaims
from harness.facts.jsonready import as_value
from harness.facts.logfile import read_log
from harness.facts.runs import Run
from harness.facts.submission import Submission, as_json, read
from harness.model import Fact, HarnessError, Located, Location, Missing
from harness.sources import manifest
from harness.sources.trainlog import source_sha256

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


def test_the_numbers_of_a_run_and_their_lines() -> None:
    run = run_of(log())
    score = value(run.headline)
    assert (score.label, value(score.val_bpb), value(score.val_loss)) == ("final_sliding_window_exact", 1.25, 2.8)
    assert (score.digits, score.loss_digits, score.diagnostic) == (8, 8, False)
    # The exact line has no time; its rounded twin has.
    assert (value(score.eval_seconds), line(score.eval_seconds)) == (7.0, 18)
    assert line(run.headline) == 19
    assert [item.diagnostic for item in run.scores] == [True, False, False, False]
    assert (value(run.steps), line(run.steps), value(run.iterations)) == (12, 10, 50)
    assert (value(run.train_seconds), value(run.step_overshoot_seconds)) == (1.201, 0.1)
    assert value(run.eval_seconds) == 9.0
    assert [(phase.name, phase.seconds, phase.counted) for phase in run.phases] == [
        ("DIAGNOSTIC post_ema", 0.5, False),
        ("final_roundtrip", 2.0, True),
        ("final_sliding_window", 7.0, True),
    ]
    assert (value(run.model_bytes), value(run.code_bytes)) == (5000, len(SCRIPT))
    assert (value(run.total_bytes), line(run.total_bytes)) == (5000 + len(SCRIPT), 16)
    assert [value(fact) for fact in (run.parameters, run.world_size, run.val_tokens, run.train_shards)] == [
        9000,
        8,
        1024,
        3,
    ]
    assert {key: run.config[key].value for key in ("grad_accum_steps", "lr", "warmup", "seed")} == {
        "grad_accum_steps": "1",
        "lr": "0.1",
        "warmup": "2",
        "seed": "42",
    }
    assert value(run.complete) is True
    assert run.curve == ((0, 4.0), (12, 1.3))
    assert (run.family, run.concatenated, run.evaluation_only) == ("step", 1, False)
    assert isinstance(run.source, Missing)


def test_the_seed_of_the_log_goes_before_the_name() -> None:
    run = run_of(log(1337), "train_seed42.log")
    assert (value(run.seed), line(run.seed), value(run.named_seed)) == (1337, 6, 42)
    unseeded = log().replace("seed:42\n", "")
    run = run_of(unseeded, "logs/run_seed-7.txt")
    assert (value(run.seed), line(run.seed)) == (7, None)
    assert isinstance(run_of(unseeded, "train_v3.txt").seed, Missing)
    twice = run_of(log().replace("seed:42\n", "seed:42\nseed:43\n"))
    assert isinstance(twice.seed, Missing)
    assert "42, 43" in twice.seed.reason


def test_the_last_finished_run_of_a_joined_log_counts() -> None:
    crashed = log(3, bpb=1.9).partition("stopping_early")[0]
    run = run_of(log(1, bpb=1.5) + log(2, bpb=1.4) + crashed)
    assert (value(run.seed), value(value(run.headline).val_bpb), run.concatenated) == (2, 1.4, 3)
    assert {"lr", "warmup", "seed", "world_size", "grad_accum_steps"} <= set(run.config)
    assert value(run.train_shards) == 3


def resumed_log(
    *, source: str = SCRIPT, resumed: str = "resumed:c.pt step:4/12 train_time:400ms step_avg:100.00ms"
) -> str:
    """A run that was killed after its sixth step and resumed after its fourth; settings stand before the seed."""
    head = "Hyperparameters:\n  resume: {}\n  seed: 7\n" + "=" * 100 + "\n{}" + "=" * 100 + "\nseed:7\n"
    steps = [f"step:{n}/12 train_loss:{9 - n / 4} train_time:{100 * n}ms step_avg:100.00ms" for n in range(1, 13)]
    later = [line.replace("00ms step", "50ms step") for line in steps[4:]]
    parts = (head.format(0, SCRIPT), *steps[:6], "Traceback (most recent call last):", head.format(1, source), resumed)
    return "\n".join((*parts, *later, "final_int8_exact val_loss:2.7 val_bpb:1.2 eval_time:9ms")) + "\n"


def test_a_resumed_run_is_one_run_without_the_steps_that_were_lost() -> None:
    run = run_of(resumed_log())
    assert (value(run.seed), value(run.steps), value(run.train_seconds), run.concatenated) == (7, 12, 1.25, 1)
    assert [step for step, _ in run.losses] == list(range(1, 13))
    assert [(step.value, step.location.line) for step in run.resumed] == [(4, 30)]
    assert value(run.complete) is True
    # The settings of the part that finished are the run's.
    assert run.config["resume"].value == "1"


def test_a_part_of_another_script_is_another_run() -> None:
    run = run_of(resumed_log(source=SCRIPT + "# changed\n"))
    assert (run.concatenated, [step for step, _ in run.losses]) == (2, list(range(5, 13)))
    assert value(run.source) == source_sha256(SCRIPT + "# changed\n")
    unsaid = run_of(resumed_log(resumed="going on"))
    assert (unsaid.concatenated, unsaid.resumed) == (2, ())


def test_the_runs_of_several_seeds_in_one_log_all_count() -> None:
    crashed = log(3, bpb=1.9).partition("stopping_early")[0]
    joined = log(1, bpb=1.5) + log(2, bpb=1.4) + crashed
    runs = build_runs(read_log(joined.encode(), "train_logs.txt"))
    assert [value(run.seed) for run in runs] == [1, 2, 3]
    assert [known_headline(run) for run in runs] == [1.5, 1.4, None]
    assert len({run.location for run in runs}) == 3
    assert {run.concatenated for run in runs} == {3}


def test_a_search_over_many_seeds_keeps_its_last_run() -> None:
    joined = "".join(log(seed) for seed in range(1, 15))
    assert [value(run.seed) for run in build_runs(read_log(joined.encode(), "search.txt"))] == [14]


def known_headline(run: Run) -> Any:
    headline = value(run.headline)
    return None if headline is None else value(headline.val_bpb)


def test_a_run_printed_twice_is_one_run() -> None:
    run = run_of(log() + log(source=SCRIPT))
    assert run.concatenated == 1
    assert value(run.source) == source_sha256(SCRIPT)
    assert value(run.source_bytes) == len(SCRIPT)


def test_an_evaluation_after_a_run_belongs_to_it() -> None:
    run = run_of(log(bpb=1.25) + "seed:42\nlegal_ttt_exact val_loss:2.7 val_bpb:1.20000000\n")
    assert value(run.headline).label == "legal_ttt_exact"
    assert value(run.steps) == 12


def test_a_log_without_training_is_an_evaluation() -> None:
    run = run_of(
        "Hyperparameters:\n  seed: 5\n  world_size: 8\nlegal_ttt_exact val_loss:2.7 val_bpb:1.2 eval_time:9ms\n"
    )
    assert run.evaluation_only
    assert run.family == "evaluation"
    assert isinstance(run.steps, Missing)
    assert value(run.world_size) == 8


def test_a_run_without_final_evaluation_says_so() -> None:
    cut = log().partition("DIAGNOSTIC")[0]
    run = run_of(cut)
    assert isinstance(run.headline, Missing)
    assert "the last at step 12" in run.headline.reason
    assert isinstance(run.complete, Missing)
    crashed = run_of(cut + "Traceback (most recent call last):\nRuntimeError: no\n")
    assert value(crashed.complete) is False
    assert line(crashed.complete) == 12


def test_a_nan_score_is_unfinished_business() -> None:
    run = run_of(log().partition("final_roundtrip")[0] + "final_roundtrip val_loss:nan val_bpb:nan\n")
    assert value(run.complete) is False
    score = value(run.headline)
    assert isinstance(score.val_bpb, Missing)
    assert "nan" in score.val_bpb.reason


def test_minutes_are_too_coarse_for_a_time() -> None:
    run = run_of("seed:1\n10/50 train_loss: 3.0 train_time: 9.9m tok/s: 100\nfinal_sliding val_loss:2.8 val_bpb:1.2\n")
    assert run.family == "minutes"
    assert isinstance(run.train_seconds, Missing)


def test_budget_logs_give_the_model_as_what_remains() -> None:
    sizes = "artifact:1MB x:2 code:70\nbudget:1070/16000000 ok\n"
    text = "params:900 L:1 ws:8 ga:1 s:7\nstep:9/9 loss:3.1 t:50ms avg:5ms\n"
    run = run_of(text + sizes + "final_sliding val_loss:2.9 val_bpb:1.15 eval_time:4ms\n")
    assert (run.family, value(run.seed), value(run.total_bytes), value(run.model_bytes)) == ("budget", 7, 1070, 1000)


def test_an_unlabelled_total_counts_when_it_is_model_plus_code() -> None:
    text = log().replace("Total submission size int8+zlib", "Total submission size")
    assert value(run_of(text).total_bytes) == 5000 + len(SCRIPT)
    assert isinstance(run_of(text.replace(f"size: {5000 + len(SCRIPT)}", "size: 77")).total_bytes, Missing)


def test_text_without_a_run_is_no_log() -> None:
    assert read_log(b"torch>=2\nnumpy\n", "requirements.txt") == ()
    assert read_log(b"We reached val_bpb: 1.2 at last.\n", "notes.txt") == ()
    assert read_log(b"\x00\xff" * 40, "x.log") == ()


def test_floods_of_scores_are_bounded() -> None:
    text = log() + "".join(f"final_x{n} val_loss:2.0 val_bpb:1.5\n" for n in range(1_000))
    assert len(run_of(text).scores) == 400


def parse_claims(document: dict[str, Any]) -> ManifestClaims:
    return build_claims(manifest.read(json.dumps(document, indent=1).encode(), "submission.json"), "")


def table(claims: ManifestClaims) -> list[tuple[Any, ...]]:
    return [
        (value(row.seed), value(row.val_bpb), value(row.artifact_bytes), value(row.steps), value(row.eval_seconds))
        for row in claims.seeds
    ]


def test_claims_under_their_synonyms() -> None:
    claims = parse_claims(
        {
            "name": "A\u202eB",
            "author": "x",
            "github_id": "y",
            "date": "2026-03-19T10:00:00Z",
            "mean_val_bpb": 1.5,
            "pre_quant_val_bpb": 1.1,
            "artifact_bytes_mean": 15427455.6,
            "code_bytes": 70,
            "val_bpb_std": True,
        }
    )
    assert value(claims.name) == "A\ufffdB"
    assert value(claims.date) == dt.date(2026, 3, 19)
    assert value(claims.val_bpb) == 1.5
    assert claims.val_bpb == Located(1.5, Location("submission.json", 6, "/mean_val_bpb"))
    assert (value(claims.bytes_total), value(claims.bytes_code)) == (15427456, 70)
    assert isinstance(claims.val_bpb_std, Missing)
    assert isinstance(claims.track, Missing)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {
                "seeds": [1, 2],
                "seed_results": {"1": {"val_bpb": 1.2, "artifact_bytes": 5, "steps": 9, "eval_time_s": 3.5}},
            },
            [(1, 1.2, 5, 9, 3.5)],
        ),
        ({"seeds": {"0": {"val_bpb": 1.2, "bytes_total": 5, "eval_time_ms": 500}}}, [(0, 1.2, 5, None, 0.5)]),
        ({"seed_results": [{"seed": 7, "val_bpb": 1.3}, {"val_bpb": 9}]}, [(7, 1.3, None, None, None)]),
        ({"seed_results": {"3": 1.25, "mean": 1.3}}, [(3, 1.25, None, None, None)]),
        (
            {"seeds": [4], "results": {"4": {"val_bpb": 1.4, "artifact_bytes": 6, "steps": 8}}},
            [(4, 1.4, 6, 8, None)],
        ),
        ({"seeds": [4], "results": {"val_bpb": 1.4, "code_bytes": 6}}, [(4, None, None, None, None)]),
        (
            {"seeds": [42, 0], "seed_scores": [1.1, 1.2], "eval_time_seconds": [80, 81]},
            [(42, 1.1, None, None, 80.0), (0, 1.2, None, None, 81.0)],
        ),
        ({"seeds": [42, 0], "seed_scores": [1.1]}, [(42, None, None, None, None), (0, None, None, None, None)]),
        ({"seed": 1337}, [(1337, None, None, None, None)]),
        ({"seeds": 3}, []),
        ({"seeds": None, "seed_results": "none"}, []),
        ({"seeds": [True, -1, "x", 1.5]}, []),
    ],
)
def test_seed_tables_of_every_shape(document: dict[str, Any], expected: list[tuple[Any, ...]]) -> None:
    assert table(parse_claims(document)) == expected


def test_seed_values_have_pointers() -> None:
    row = parse_claims({"seed_results": {"1": {"val_bpb": 1.2}}}).seeds[0]
    assert row.val_bpb == Located(1.2, Location("submission.json", 4, "/seed_results/1/val_bpb"))
    assert isinstance(row.steps, Missing)
    assert row.steps.location == Location("submission.json", 3, "/seed_results/1")


def test_a_declared_split() -> None:
    split = {"name": "demo", "tokens": 9, "bytes": 30}
    assert value(parse_claims({"validation_split": split}).validation_split) == DeclaredSplit("demo", 9, 30)
    assert isinstance(parse_claims({"validation_split": {"name": "demo"}}).validation_split, Missing)
    assert isinstance(parse_claims({}).validation_split, Missing)


def test_claims_that_do_not_parse_are_missing_with_the_reason() -> None:
    broken = build_claims(manifest.read(b"{", "submission.json"), "")
    assert isinstance(broken.val_bpb, Missing)
    assert broken.val_bpb.reason == "submission.json does not parse"
    absent = build_claims(None, "no file")
    assert absent.name == Missing("no file")


def record(root: Path, **files: str | bytes) -> Submission:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(root)


MANIFEST = json.dumps({"name": "A", "author": "x", "github_id": "y", "date": "2026-03-19", "val_bpb": 1.25})


def test_a_whole_folder(tmp_path: Path) -> None:
    submission = record(
        tmp_path,
        README_DOT_md="# A\n\n**val_bpb: 1.25**\n",
        submission_DOT_json=MANIFEST,
        train_gpt_DOT_py=SCRIPT,
        train_seed42_DOT_log=log(source=SCRIPT),
        logs__seed43_DOT_txt=log(43, source=SCRIPT),
        requirements_DOT_txt="torch\n",
    )
    package = submission.package
    assert [location.path for location in package.logs] == ["logs/seed43.txt", "train_seed42.log"]
    assert [value(run.seed) for run in submission.runs] == [43, 42]
    entry = value(package.entry)
    assert (entry.path, entry.texts) == ("train_gpt.py", (source_sha256(SCRIPT),))
    assert {value(run.source) for run in submission.runs} == set(entry.texts)
    assert value(entry.parsed) is True
    assert entry.environment == (Located(("SEED", "1337"), Location("train_gpt.py", 3)),)
    assert value(submission.size.entry_code_bytes) == len(SCRIPT)
    sizes = submission.size.per_seed[0]
    assert [value(fact) for fact in (sizes.shipped_bytes, sizes.all_helpers_bytes)] == [5000 + len(SCRIPT)] * 2
    assert isinstance(sizes.compressed_code_bytes, Missing)
    assert (value(submission.readme.val_bpb), value(submission.claims.val_bpb)) == (1.25, 1.25)
    assert package.manifest_problems == ()
    assert submission.name == tmp_path.name
    assert isinstance(submission.reproduction, Missing)


def test_an_empty_folder_is_all_reasons(tmp_path: Path) -> None:
    submission = read(tmp_path)
    assert submission.runs == ()
    for fact in (submission.package.readme, submission.package.manifest, submission.package.entry):
        assert isinstance(fact, Missing)
    assert isinstance(submission.claims.val_bpb, Missing)
    assert isinstance(submission.size.entry_code_bytes, Missing)
    json.dumps(as_json(submission), allow_nan=False)


def test_no_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="not a folder"):
        read(tmp_path / "absent")


def test_the_entry_is_declared_or_embedded_or_named(tmp_path: Path) -> None:
    other = SCRIPT + "# other\n"
    files: dict[str, str | bytes] = {"train_a_DOT_py": SCRIPT, "train_b_DOT_py": other}
    assert isinstance(record(tmp_path, **files).package.entry, Missing)
    commanded = record(tmp_path, README_DOT_md="Run `SEED=1 torchrun --nproc_per_node=8 train_b.py`.", **files)
    assert value(commanded.package.entry).path == "train_b.py"
    embedded = record(tmp_path, train_DOT_log=log(source=SCRIPT))
    assert value(embedded.package.entry).path == "train_a.py"
    declared = json.dumps({"reproduction": {"script": "train_b.py"}})
    assert value(record(tmp_path, submission_DOT_json=declared).package.entry).path == "train_b.py"


def test_helpers_count_when_the_script_needs_them(tmp_path: Path) -> None:
    main = "import os\nif os: from helper import f\nkernel = 'native/fast.cpp'\nprint('tok/own.model')\n"
    submission = record(
        tmp_path,
        train_gpt_DOT_py=main,
        helper_DOT_py="import deeper\n",
        deeper_DOT_py="x = 1\n",
        prepare_DOT_py="# used before training: train_gpt.py\n",
        native__fast_DOT_cpp="int f;\n",
        tok__own_DOT_model=b"123",
    )
    size = submission.size
    assert size.code_files == ("deeper.py", "helper.py", "native/fast.cpp", "train_gpt.py")
    assert size.data_files == ("tok/own.model",)
    assert value(size.all_code_bytes) == len(main) + len("import deeper\n") + len("x = 1\n") + len("int f;\n")


def test_packed_scripts_are_unpacked_for_helpers_and_hashes(tmp_path: Path) -> None:
    packed = base64.b85encode(zlib.compress(b"import helper, gone_missing\n")).decode()
    stub = f"import zlib,base64\nexec(zlib.decompress(base64.b85decode('{packed}')))\n"
    submission = record(tmp_path, train_gpt_DOT_py=stub, helper_DOT_py="x = 1\n")
    entry = value(submission.package.entry)
    assert entry.layers == ("base85", "zlib")
    assert entry.texts == (source_sha256(stub), source_sha256("import helper, gone_missing\n"))
    assert entry.missing_modules == (Located("gone_missing", Location("train_gpt.py", 1, layer="zlib(base85)")),)
    assert submission.size.code_files == ("helper.py", "train_gpt.py")


def test_scripts_that_do_not_parse(tmp_path: Path) -> None:
    submission = record(
        tmp_path, train_gpt_DOT_py="x = 1\n| 0 N/A |\n", stub_DOT_py="exec(open('gone.py').read())", empty_DOT_py=""
    )
    by_path = {script.path: script for script in submission.package.scripts}
    assert by_path["train_gpt.py"].parsed == Located(value=False, location=Location("train_gpt.py", 2))
    assert isinstance(by_path["stub.py"].parsed, Missing)
    assert value(by_path["empty.py"].parsed) is False


def test_manifest_problems_have_places(tmp_path: Path) -> None:
    submission = record(tmp_path, submission_DOT_json='{\n"name": "A",\n"name": "B",\n"val_bpb": NaN\n}')
    texts = {(str(problem.location), problem.value) for problem in submission.package.manifest_problems}
    assert ("submission.json", "has the key 'name' twice") in texts
    assert any(place == "submission.json#/val_bpb:4" for place, _ in texts)
    broken = record(tmp_path, submission_DOT_json="{")
    assert broken.package.manifest_problems[0].value.startswith("is no JSON")
    assert isinstance(broken.claims.val_bpb, Missing)


def test_manifests_under_other_names(tmp_path: Path) -> None:
    assert value(record(tmp_path, submission_ternary_DOT_json=MANIFEST).package.manifest) == "submission_ternary.json"
    several = record(tmp_path, submission_two_DOT_json=MANIFEST).package.manifest
    assert isinstance(several, Missing)
    assert "several" in several.reason


def test_facts_as_json() -> None:
    place = Location("a.log", 3)
    assert as_value(Located(1.5, place)) == {"value": 1.5, "path": "a.log", "line": 3}
    assert as_value(Missing("why", Location("s.json", 1, "/x", "lzma"))) == {
        "missing": "why",
        "path": "s.json",
        "line": 1,
        "pointer": "/x",
        "layer": "lzma",
    }
    assert as_value(DeclaredSplit("demo", 1, 2)) == {"name": "demo", "tokens": 1, "bytes": 2}
    assert as_value({"k": (1, None, True)}) == {"k": [1, None, True]}
    assert as_value(float("nan")) == "nan"
    assert as_value(dt.date(2026, 3, 1)) == "2026-03-01"
    assert as_value("\ud800") == "?"


def test_the_json_of_a_folder_names_every_fact(tmp_path: Path) -> None:
    submission = record(tmp_path, train_gpt_DOT_py=SCRIPT, train_DOT_log=log(), submission_DOT_json=MANIFEST)
    document: Any = json.loads(json.dumps(as_json(submission), allow_nan=False))
    assert list(document) == [
        "package",
        "claims",
        "readme",
        "runs",
        "size",
        "targets",
        "byte_tables",
        "legality",
        "reproduction",
        "names",
        "pipeline",
        "settings",
        "statements",
    ]
    assert document["claims"]["val_bpb"] == {"value": 1.25, "path": "submission.json", "line": 1, "pointer": "/val_bpb"}
    assert document["runs"][0]["headline"]["value"]["val_bpb"] == {"value": 1.25, "path": "train.log", "line": 19}
    assert document["runs"][0]["config"]["lr"] == {"value": "0.1", "path": "train.log", "line": 5}
    assert document["claims"]["track"]["missing"] == "submission.json has no track"


@settings(max_examples=15)
@given(st.binary(max_size=400), st.binary(max_size=400), st.binary(max_size=400), st.binary(max_size=400))
def test_any_bytes_in_any_file_are_read(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, script: bytes, document: bytes, output: bytes
) -> None:
    submission = record(
        tmp_path_factory.mktemp("record"),
        README_DOT_md=text,
        train_gpt_DOT_py=script,
        submission_DOT_json=document,
        train_DOT_log=output,
    )
    assert json.loads(json.dumps(as_json(submission), allow_nan=False)).keys() >= {"package", "claims", "runs", "size"}


@settings(max_examples=25)
@given(st.data())
def test_damaged_folders_are_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    def damaged(text: str) -> bytes:
        raw = bytearray(text.encode())
        for _ in range(data.draw(st.integers(0, 4))):
            start = data.draw(st.integers(0, len(raw)))
            raw[start : start + data.draw(st.integers(0, 60))] = data.draw(st.binary(max_size=6))
        return bytes(raw)

    submission = record(
        tmp_path_factory.mktemp("record"),
        README_DOT_md=damaged("# A\n\n**val_bpb: 1.25**\n\n| Seed | BPB |\n|---|---|\n| 42 | 1.25 |\n"),
        train_gpt_DOT_py=damaged(SCRIPT),
        submission_DOT_json=damaged(MANIFEST),
        train_DOT_log=damaged(log(source=SCRIPT)),
    )
    assert json.loads(json.dumps(as_json(submission), allow_nan=False)).keys() >= {"package", "claims", "runs", "size"}


def test_numbers_called_bits_per_byte_are_kept_though_no_score_is_read() -> None:
    run = run_of(log() + "mix_done ngram_bpb=0.3210 delta=-0.8\nppm_mix_bpb:0.832925\n")
    named = {(fact.value, fact.location.line) for fact in run.named_bpb}
    last = log().count("\n")
    assert {(0.321, last + 1), (0.832925, last + 2)} <= named


@pytest.mark.parametrize(("name", "seed"), [("s1_control.txt", None), ("final_s1337.txt", 1337), ("seed7.txt", 7)])
def test_a_single_digit_after_s_is_no_seed(name: str, seed: int | None) -> None:
    assert value(run_of(log(), name).named_seed) == seed
