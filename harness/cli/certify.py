"""The `certify` command: compress a text with a submission's predictions, decode it again, compare the size."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.cli import arguments, files, output
from harness.cli.reproduce import demo_corpus
from harness.report.plain import plain

if TYPE_CHECKING:
    from harness.certify.certifying import Request

CACHE: Final = Path(".cache") / "certify"
CERTIFICATE_NAME: Final = "certificate.json"
DEFAULT_BYTES: Final = 65_536
STATUS: Final = {"pass": output.EXIT_PASS, "fail": output.EXIT_FAIL, "undecided": output.EXIT_PASS}


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "certify",
        help="prove a score by decompression: encode a text with the submission's predictions, and decode it",
        description="Compress the beginning of the validation split with an arithmetic coder that is driven by the "
        "submission's own predictions, in a sandbox that holds its code, artifact and tokenizer only; decode it in a "
        "fresh process; compare token for token, byte for byte, and the size with the submission's own score of the "
        "same text.",
        epilog="Exit status: 0 certified (or undecided), 1 not certified, 2 usage, 3 the harness itself failed, "
        "4 undecided under --strict.",
    )
    parser.add_argument("folder", type=arguments.place, metavar="FOLDER", help="a record folder")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--bytes", type=arguments.positive, metavar="N", help=f"bytes of text (default: {DEFAULT_BYTES})"
    )
    length.add_argument("--tokens", type=arguments.positive, metavar="N", help="tokens of text instead")
    parser.add_argument(
        "--artifact", type=arguments.place, metavar="FILE", help="its compressed model (default: in the folder)"
    )
    parser.add_argument(
        "--data", type=arguments.place, metavar="DIR", help="data root (datasets/, tokenizers/) or a dataset in it"
    )
    parser.add_argument(
        "--predictor", type=arguments.place, metavar="FILE", help="a script that predicts instead of the folder's"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="KEY=VALUE", help="a setting of the predictor; repeatable"
    )
    parser.add_argument(
        "--evidence", type=arguments.place, metavar="DIR", help="where the certificate and the stream go"
    )
    parser.add_argument("--seconds", type=arguments.positive, default=1800, metavar="N", help="time of each program")
    parser.add_argument(
        "--threads", type=arguments.positive, default=os.cpu_count() or 1, metavar="N", help="of each program"
    )
    parser.add_argument(
        "--allow-unsafe", action="store_true", help="run the code although the sandbox is weaker than L2"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="what to print (default: text)")
    parser.add_argument("--strict", action="store_true", help="exit with 4 when the certificate is undecided")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Certify, write the certificate, print it, and return the exit status."""
    from harness.certify import certifying
    from harness.sandbox.establish import establish, require

    request = _request(parsed)
    sandbox = require(establish(), allow_unsafe=parsed.allow_unsafe)
    directory: Path = parsed.evidence or CACHE / parsed.folder.resolve().name
    found = certifying.certify(request, directory, sandbox, lambda line: print(plain(line), file=sys.stderr))
    rendered = json.dumps(found, indent=2, allow_nan=False) + "\n"
    files.write(directory / CERTIFICATE_NAME, rendered)
    output.say(rendered if parsed.format == "json" else summary(found, directory))
    undecided = parsed.strict and found["verdict"] == "undecided"
    return output.EXIT_UNDECIDED if undecided else STATUS[found["verdict"]]


def _request(parsed: argparse.Namespace) -> Request:
    from harness import audit
    from harness.certify.certifying import Request
    from harness.reproduce import plan
    from harness.reproduce.environment import parse_pairs
    from harness.sources.folder import walk

    asked = plan.Request(data=parsed.data, demo=demo_corpus)
    made = plan.make(walk(parsed.folder), audit.read(parsed.folder, None), asked)
    return Request(
        plan=made,
        artifact=parsed.artifact,
        predictor=parsed.predictor,
        settings=parse_pairs(parsed.env),
        byte_count=0 if parsed.tokens else parsed.bytes or DEFAULT_BYTES,
        token_count=parsed.tokens or 0,
        seconds=parsed.seconds,
        threads=parsed.threads,
    )


def summary(found: dict[str, Any], directory: Path) -> str:
    """For people."""
    text, stream, isolation = found["text"], found["stream"], found["isolation"]
    held, seconds = found["submission"]["artifact"], found["seconds"]
    hashed = f"{held['bytes']:,} bytes, sha256 {held['sha256'][:16]}"
    code_bytes = sum(file["bytes"] for file in found["predictor"]["code"])
    lines = [
        f"{found['submission']['folder']}: {found['verdict']}: {found['message']}",
        f"  artifact   {held['path']}, {hashed}",
        f"  predictor  {found['predictor']['script']}, {isolation['level']} ({isolation['backend']})",
        f"  text       {text['dataset']}, {text['tokens']:,} tokens, {text['bytes']:,} bytes",
    ]
    if stream is not None:
        lines.append(f"  stream     {stream['bits'] // 8:,} bytes, {stream['bits_per_byte']:.6f} bits per byte")
        lines.append(f"  beside it  {held['bytes'] + code_bytes:,} bytes: artifact and {code_bytes:,} of code")
    if found["claim"] is not None:
        lines.append(f"  claim      {found['claim']['val_bpb']:.6f} bits per byte ({found['claim']['label']})")
    lines.append("  seconds    " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
    return "".join(f"{plain(line)}\n" for line in [*lines, f"evidence: {directory}"])
