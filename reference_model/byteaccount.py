"""Where the bytes of a submission go: its artifact tensor by tensor, its script module by module. Every sum is exact.

A compressor codes everything together, so no byte of its stream belongs to one tensor. Each tensor's bytes are those
that the same compressor needs for it alone; what coding together saves or costs stands on a line of its own. Words of
ANS are shared out by the code lengths of each tensor's integers, which add up to them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reference_model.ans import RowTables, fit_tables, row_counts
from reference_model.artifact import DIGEST_BYTES, MAGIC_BYTES, coding_of, encoded, read_content
from reference_model.bundle import compact, script_parts
from reference_model.coders import SIZE_BYTES, brotli_encoded, zstd_encoded
from reference_model.codings import CODINGS, missing_packages
from reference_model.main import TOTAL_CAP_BYTES
from reference_model.payload import FLOAT_TYPES, Content, by_kind, from_planes, integer_entries, planes, section_bytes

ZSTD_LEVEL = 22
TOGETHER = "coded together"
JOINTS = "between modules"
# Behind the integers, in their order.
SECTIONS = {"scale": "<f2", **FLOAT_TYPES}


@dataclass(frozen=True)
class ByteLine:
    """One line of an account.

    Attributes:
        name: Tensor or module, or what else takes bytes.
        size: Bytes; negative where coding together saves some.
        kind: How a tensor is stored; "" for what is none.
        numel: Its weights.
        scales: Those of the bytes that are row scales.
    """

    name: str
    size: int
    kind: str = ""
    numel: int = 0
    scales: int = 0


def artifact_account(blob: bytes) -> list[ByteLine]:
    """Lines of an artifact; their sizes add up to its length.

    Raises:
        ArtifactError: It is none, or damaged.
        CoderError: The package of its coder is not installed.
    """
    coding, content = coding_of(blob), read_content(blob)
    framing = MAGIC_BYTES + DIGEST_BYTES + (0 if coding == "zstd" else SIZE_BYTES)
    lines = [ByteLine("magic, checksum, sizes", framing), ByteLine("header", _alone(content.head, coding))]
    if coding == "ans":
        words = len(blob) - framing - int.from_bytes(blob[framing - SIZE_BYTES : framing], "little")
        tables = _tables(content)
        integers = shared_out(words, integer_bits(content, tables))
        for kind, one in tables.items():
            lines.append(ByteLine(f"tables of {kind}", _alone(planes([one.frequencies], "<u2"), coding)))
            lines.append(ByteLine(f"row tables of {kind}", _alone(one.classes.tobytes(), coding)))
    else:
        integers = [_alone(matrix.tobytes(), coding) for matrix in content.integers]
    lines.extend(_tensor_lines(content, coding, integers))
    together = len(blob) - sum(line.size for line in lines)
    return [*lines, ByteLine(TOGETHER, together)]


def _tensor_lines(content: Content, coding: str, integers: Sequence[int]) -> Iterator[ByteLine]:
    """Every tensor; its scales and floats are coded alone."""
    ends, sections = itertools.accumulate(section_bytes(content.entries)[1:], initial=0), dict[str, Any]()
    for (kind, code), (start, end) in zip(SECTIONS.items(), itertools.pairwise(ends), strict=True):
        sections[kind] = from_planes(content.rest[start:end], code)
    coded = iter(integers)
    for entry in content.entries:
        kind, count = ("scale", entry.scales) if entry.is_integer else (entry.kind, entry.numel)
        numbers, sections[kind] = sections[kind][:count], sections[kind][count:]
        size = _alone(planes([numbers], numbers.dtype.str), coding)
        scales = size if entry.is_integer else 0
        yield ByteLine(entry.name, size + (next(coded) if entry.is_integer else 0), entry.kind, entry.numel, scales)


def _alone(content: bytes, coding: str) -> int:
    """Bytes of a coded content, less those of an empty one."""
    if coding == "brotli":
        return len(brotli_encoded(content)) - len(brotli_encoded(b""))
    return len(zstd_encoded(content, ZSTD_LEVEL)) - len(zstd_encoded(b"", ZSTD_LEVEL))


def _tables(content: Content) -> dict[str, RowTables]:
    """The tables that the encoder finds, by kind."""
    tops = {entry.kind: entry.top for entry in integer_entries(content.entries)}
    return {
        kind: fit_tables([content.integers[place] for place in places], tops[kind])
        for kind, places in by_kind(content.entries).items()
    }


def integer_bits(content: Content, tables: Mapping[str, RowTables]) -> list[float]:
    """Code lengths of the integers of each tensor."""
    rows = dict.fromkeys(tables, 0)
    bits = []
    for entry, matrix in zip(integer_entries(content.entries), content.integers, strict=True):
        one, start = tables[entry.kind], rows[entry.kind]
        rows[entry.kind] += entry.scales
        lengths = one.symbol_bits()[one.classes[start : rows[entry.kind]]]
        bits.append(float((row_counts(matrix, entry.top) * lengths).sum()))
    return bits


def shared_out(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to shares, with this total: the largest remainders are rounded up."""
    if not (whole := sum(shares)):
        return [total // len(shares) + (place < total % len(shares)) for place in range(len(shares))]
    exact = [total * share / whole for share in shares]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda place: (parts[place] - exact[place], place))
    for place in by_remainder[: total - sum(parts)]:
        parts[place] += 1
    return parts


def coder_sizes(content: Content) -> dict[str, int]:
    """Bytes of the artifact by every coder whose package is installed."""
    return {name: len(encoded(content, name, ZSTD_LEVEL)) for name in CODINGS if not missing_packages(name)}


def script_account(texts: Mapping[str, str], preset: str, version: str, *, small: bool) -> list[ByteLine]:
    """Lines of a bundled script by module; their sizes add up to its length.

    Args:
        texts: Module name to source text.
        preset: What it is bundled with.
        version: Of the package.
        small: Without comments and docstrings.
    """
    parts = script_parts(texts, preset, version)
    script = "".join(text for _, text in parts)
    if not small:
        return [ByteLine(name, len(text.encode())) for name, text in parts]
    lines = [ByteLine(name, len(compact(text).encode())) for name, text in parts]
    return [*lines, ByteLine(JOINTS, len(compact(script).encode()) - sum(line.size for line in lines))]


def account_text(artifact: Sequence[ByteLine], script: Sequence[ByteLine], sizes: Mapping[str, int], used: str) -> str:
    """The whole account for people.

    Args:
        artifact: Of `artifact_account`.
        script: Of `script_account`.
        sizes: Of `coder_sizes`.
        used: The coder of the artifact.
    """
    model, code = (sum(line.size for line in lines) for lines in (artifact, script))
    width = max(len(line.name) for line in (*artifact, *script))
    lines = [f"{'tensor':<{width}} {'kind':<8} {'weights':>12} {'bytes':>12} {'scales':>10} {'bits/weight':>11}"]
    lines.extend(_tensor_text(artifact, width))
    weights = sum(line.numel for line in artifact)
    lines.append(f"{'artifact':<{width}} {'':8} {weights:>12,} {model:>12,}")
    lines.extend(("", f"{'module':<{width}} {'bytes':>12}"))
    lines.extend(f"{line.name:<{width}} {line.size:>12,}" for line in script)
    lines.extend((f"{'script':<{width}} {code:>12,}", "", f"{'coder':<{width}} {'artifact':>12}"))
    smallest = min(sizes.values(), default=0)
    for name, size in sizes.items():
        marks = " (smallest)" * (size == smallest) + " (used)" * (name == used)
        lines.append(f"{name:<{width}} {size:>12,}{marks}")
    left = TOTAL_CAP_BYTES - model - code
    verdict = f"{abs(left):,} {'below' if left >= 0 else 'above'} the cap of {TOTAL_CAP_BYTES:,}"
    return "\n".join((*lines, "", f"total {model + code:,}: artifact {model:,}, code {code:,}; {verdict}"))


def _tensor_text(lines: Iterable[ByteLine], width: int) -> Iterator[str]:
    for line in lines:
        text = f"{line.name:<{width}} {line.kind:<8} {line.numel or '':>12{',' if line.numel else ''}} {line.size:>12,}"
        yield f"{text} {line.scales:>10,} {8 * line.size / line.numel:>11.3f}" if line.numel else text
