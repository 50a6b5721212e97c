"""The table of one run in all its forms: every row on the same tokens, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reference_model.baselines import Row
from reference_model.cli import command_line
from reference_model.likeforlike import LikeForLike, like_for_like
from reference_model.main import main, read_config
from reference_model.miniature import miniature_environment, miniature_text, write_miniature_corpus
from reference_model.settings import ConfigError


def test_both_forms() -> None:
    rows = (Row("float", 2.5, 1.0), Row("EMA", 2.0, 1.25), Row("int6 + SGD TTT", 1.75, 20.0, 1234))
    found = LikeForLike("demo", 40, 100, rows)
    assert found.as_text().splitlines() == [
        "demo: 40 targets, 100 bytes; gap to EMA",
        "                    BPB      gap        s      bytes",
        "float            2.5000  +0.5000      1.0          -",
        "EMA              2.0000  +0.0000      1.2          -",
        "int6 + SGD TTT   1.7500  -0.2500     20.0       1234",
    ]
    document = json.loads(json.dumps(found.as_json()))
    assert (document["schema"], document["tokens"], document["rows"][2]["gap_bpb"]) == ("likeforlike/1", 40, -0.25)


@pytest.fixture(name="environ")
def _environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of a tiny run, which was made."""
    environ = miniature_environment(write_miniature_corpus(tmp_path / "corpus"))
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "script.py").write_text("pass\n")
    assert main(environ, tmp_path / "script.py", "demo") == 0
    return environ


def test_the_command_scores_every_form(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    every = ["sgd", "lora", "phased", "phased_lora", "carry", "documents"]
    assert command_line(["table", "--run", str(tmp_path / "run"), "--rows", *every, "--json", "table.json"]) == 0
    printed, document = capsys.readouterr().out, json.loads(Path("table.json").read_text())
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == [
        *["float", "EMA", "int6", "int6 + SGD TTT", "int6 + LoRA TTT", "int6 + phased TTT", "int6 + phased LoRA TTT"],
        *["int6 + carried", "int6 + documents"],
    ]
    assert document["tokens"] == 299
    assert all(f"{name} " in printed for name in rows)
    assert len({row["val_bpb"] for row in rows.values()}) == len(rows)
    assert rows["int6"]["gap_bpb"] == pytest.approx(rows["int6"]["val_bpb"] - rows["EMA"]["val_bpb"])
    assert rows["int6"]["model_bytes"] == Path("final_model.int6.ptz").stat().st_size
    # The run's own headline is one of the rows.
    headline = next(Path("logs").glob("*.txt")).read_text().splitlines()[-1]
    assert f"val_bpb:{rows['int6 + SGD TTT']['val_bpb']:.8f}" in headline
    assert command_line(["table", "--run", str(tmp_path / "run"), "--data", str(tmp_path / "corpus"), "--rows"]) == 0
    assert f", {sum(len(text) for text in miniature_text(2, 30))} bytes" in capsys.readouterr().out
    config = read_config(environ | {"TTT_ENABLED": "0", "EVAL_ISOLATE_DOCS": "1"}, "demo")
    with pytest.raises(ConfigError, match=r"EVAL_ISOLATE_DOCS: TTT_KIND=sgd needs .* \(row 'SGD TTT'\)"):
        like_for_like("demo", config, tmp_path / "run", ["sgd"])
    config = read_config(environ | {"TTT_LORA_PARTS": "mlp", "TTT_FREEZE_BLOCKS": "2"}, "demo")
    with pytest.raises(ConfigError, match=r"TTT_LORA_PARTS: the model has no layer .* \(row 'LoRA TTT'\)"):
        like_for_like("demo", config, tmp_path / "run", ["lora"])
