"""What a miniature run printed, and which of its files is the artifact."""

from __future__ import annotations

import pytest

from harness.probe.printed import Printed, printed
from harness.probe.session import MiniatureRun
from tests.proberuns import ENDED


def test_the_loss_of_a_headline_may_stand_in_another_line() -> None:
    lines = (
        "step:8/8 val_loss:5.0712 val_bpb:1.8701 train_time:1608ms step_avg:201.06ms",
        "final_int6_roundtrip val_loss:6.4290 val_bpb:2.3662 eval:0ms",
        "final_int6_roundtrip_exact val_bpb:2.36622204",
    )
    found = printed("\n".join(lines).encode(), "output.log")
    assert (found.val_bpb, found.val_loss) == (2.36622204, 6.4290)
    alone = printed("\n".join((lines[0], lines[2])).encode(), "output.log")
    assert (alone.val_bpb, alone.val_loss) == (2.36622204, None)


def test_bits_per_byte_alone_imply_the_loss_where_another_score_tells_the_bytes_of_a_token() -> None:
    both = "final_int8_zlib_roundtrip_exact val_loss:6.93170584 val_bpb:3.22679113"
    alone = "final_sliding_window_exact val_bpb:2.50000000"
    found = printed(f"{both}\n{alone}\n".encode(), "output.log")
    assert (found.val_bpb, found.val_loss) == (2.5, None)
    assert found.loss == found.implied == pytest.approx(2.5 * 6.93170584 / 3.22679113, rel=1e-12)
    assert printed(f"{both}\n".encode(), "output.log").implied is None
    # Four decimals would name several passes.
    for text in (f"{both[:-4]}\n{alone}\n", f"{both}\n{alone[:-4]}\n"):
        assert printed(text.encode(), "output.log").loss is None


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("  VARIATIONAL BPB: 2.1655\n  BPB of the one before: 1.625\n", "BPB of the one before: 1.625"),
        ("bits per byte = 1.9\ndone, bits per byte = 1.9", "done, bits per byte = 1.9"),
        ("done in 3.5 s, no bpb", ""),
        ("", ""),
    ],
)
def test_a_score_in_an_unknown_form_is_told(text: str, unread: str) -> None:
    found = printed(text.encode(), "output.log")
    assert (found.val_bpb, found.unread) == (None, unread)


@pytest.mark.parametrize(
    "text", ["loss=14.2\n  VARIATIONAL BPB: 2.1655\nAR baseline: 1.22\n", "bits per byte = 2.1655\ndone"]
)
def test_what_alone_is_called_bits_per_byte_is_the_score(text: str) -> None:
    found = printed(text.encode(), "output.log")
    assert (found.val_bpb, found.val_loss, found.unread) == (2.1655, None, "")


def test_every_number_that_may_be_a_size_is_read() -> None:
    text = b"artifact: 837482 bytes + 54,215 code = 891697 total, 15.9MB of 16,000,000, lr 0.12345, t=1234.5 s, v 12\n"
    assert printed(text, "output.log").sizes == {837482, 54215, 891697, 16000000}


@pytest.mark.parametrize(
    ("told", "files", "artifact"),
    [
        (Printed(model_bytes=900), {"a.ptz": 900, "b.pt": 5000}, "a.ptz"),
        (Printed(model_bytes=900), {"a.ptz": 901}, None),
        (Printed(sizes=frozenset({900, 5000})), {"a.ptz": 900, "b.pt": 5000}, "a.ptz"),
        (Printed(sizes=frozenset({5000})), {"a.ptz": 900, "b.pt": 5000}, None),
        (Printed(sizes=frozenset({900})), {"a.ptz": 900, "b.pt": 900}, None),
        (Printed(), {}, None),
    ],
)
def test_the_artifact_is_the_file_whose_size_was_printed(
    told: Printed, files: dict[str, int], artifact: str | None
) -> None:
    run = MiniatureRun(ENDED, (), told, {path: (f"hash of {path}", size) for path, size in files.items()})
    assert run.artifact() == (None if artifact is None else (artifact, f"hash of {artifact}"))


def test_the_score_of_the_claimed_evaluation_is_the_one_that_counts() -> None:
    text = (
        b"step:8/8 train_loss:6.1 train_time:100ms\n"
        b"final_int6_sliding_window_exact val_loss:5.00000000 val_bpb:1.80000000\n"
        b"legal_ttt val_loss:5.1000 val_bpb:1.8600\n"
        b"legal_ttt_exact val_loss:5.10000001 val_bpb:1.86000002\n"
    )
    # Adaptation that makes the score worse is an experiment, where nothing is known of the claim.
    plain = printed(text, "output.log")
    assert (plain.val_bpb, plain.labels[0]) == (1.8, "final_int6_sliding_window_exact")
    wanted = printed(text, "output.log", frozenset({"training"}))
    assert (wanted.val_bpb, wanted.val_loss, wanted.labels[0]) == (1.86000002, 5.10000001, "legal_ttt_exact")
    assert set(wanted.labels) == set(plain.labels)
    # What is not there cannot be judged: the headline stays, and its label says so.
    assert printed(text, "output.log", frozenset({"cache"})) == plain
