"""Integers of matrix rows by ANS (asymmetric numeral systems, arXiv:1311.2540) with a few tables of frequencies.

Every row is coded by one table, and rows of a like spread share one, whatever their tensor: that costs no more than a
table for each tensor, and less where the rows of one differ. Which table a row has, and the tables, are stored beside.
The coder is that of the library `constriction`: 24 bits of precision, words of 32 bits.

Shape letters: R rows of all matrices, K tables, S symbols of the alphabet, C columns of one matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from reference_model.coders import CoderError, package

Integers: TypeAlias = npt.NDArray[np.int8]
Numbers: TypeAlias = npt.NDArray[np.float64]
Classes: TypeAlias = npt.NDArray[np.intp]

TABLE_COUNTS = (1, 2, 4, 8, 16, 32)
LARGEST_TABLE_COUNT = TABLE_COUNTS[-1]
REASSIGNMENTS = 12
# A table's largest sum. A symbol that a table does not have still costs no more than the coder's 24 bits.
FREQUENCY_SUM = 1 << 14
PRECISION_BITS = 24
# Code lengths are rounded to a fraction of a bit: sums of them are then exact, whatever the order of adding.
LENGTH_STEPS = 1 << 10
# About what the tables cost once they are compressed with the rest: it only decides how many are tried for.
STORED_BITS_PER_FREQUENCY = 9
DECODED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class RowTables:
    """How rows are coded.

    Attributes:
        frequencies: uint16, K, S; a symbol's share of its table.
        classes: uint8, R; the table of every row.
    """

    frequencies: npt.NDArray[np.uint16]
    classes: npt.NDArray[np.uint8]

    def symbol_bits(self) -> Numbers:
        """Code length of every symbol under every table, K, S."""
        return _code_lengths(self.frequencies)

    def check(self) -> None:
        """Refuse tables that no encoder wrote.

        Raises:
            CoderError: a table is empty, or a row has one that does not exist.
        """
        if not self.frequencies.any(axis=1).all():
            raise CoderError("a table of frequencies without any")
        if self.classes.size and int(self.classes.max()) >= len(self.frequencies):
            raise CoderError(f"a row of table {int(self.classes.max())} of {len(self.frequencies)}")

    def models(self) -> list[Any]:
        """The coder's models, one for each table."""
        categorical = package("constriction").stream.model.Categorical
        return [categorical(row / row.sum(), perfect=False) for row in self.frequencies.astype(np.float64)]


def row_counts(matrix_RC: Integers, top: int) -> npt.NDArray[np.int64]:
    """How often every integer from -top to top stands in every row, R, S."""
    rows, symbols = len(matrix_RC), 2 * top + 1
    places_RC = matrix_RC.astype(np.int64) + (top + symbols * np.arange(rows)[:, None])
    return np.bincount(places_RC.ravel(), minlength=rows * symbols).reshape(rows, symbols)


def fit_tables(matrices: Sequence[Integers], top: int) -> RowTables:
    """Tables for the rows of these matrices: as many as pay for themselves, found by reassigning rows in turn."""
    counts_RS = np.concatenate([row_counts(matrix, top) for matrix in matrices]).astype(np.float64)
    spread_R = counts_RS @ np.abs(np.arange(-top, top + 1)) / counts_RS.sum(1)
    order_R = np.argsort(spread_R, kind="stable")
    # More tables than rows are never of use.
    fits = [_fit(counts_RS, order_R, count) for count in TABLE_COUNTS if count <= max(len(counts_RS), 1)]
    return min(fits, key=lambda fit: fit[0])[1]


def _fit(counts_RS: Numbers, order_R: Classes, count: int) -> tuple[float, RowTables]:
    """So many tables at most, and about how many bits rows, classes and tables take with them."""
    rows = len(counts_RS)
    classes_R = np.empty(rows, np.intp)
    classes_R[order_R] = np.arange(rows) * count // rows
    for _ in range(REASSIGNMENTS):
        nearest_R = (counts_RS @ _code_lengths(_frequencies(counts_RS, classes_R)).T).argmin(1)
        # Tables that lost all of their rows are dropped.
        nearest_R = np.unique(nearest_R, return_inverse=True)[1]
        if np.array_equal(nearest_R, classes_R):
            break
        classes_R = nearest_R
    frequencies_KS = _frequencies(counts_RS, classes_R)
    coded = (counts_RS * _code_lengths(frequencies_KS)[classes_R]).sum()
    sizes_K = np.bincount(classes_R).astype(np.float64)
    stored = (sizes_K * np.log2(rows / sizes_K)).sum() + STORED_BITS_PER_FREQUENCY * np.count_nonzero(frequencies_KS)
    return float(coded + stored), RowTables(frequencies_KS, classes_R.astype(np.uint8))


def _frequencies(counts_RS: Numbers, classes_R: Classes) -> npt.NDArray[np.uint16]:
    """Each class's shares of the symbols; none that occurs has zero."""
    sums_KS = np.stack([counts_RS[classes_R == k].sum(0) for k in range(int(classes_R.max()) + 1)])
    shares_KS = np.rint(sums_KS * (FREQUENCY_SUM / sums_KS.sum(1, keepdims=True)))
    return np.where(sums_KS > 0, np.maximum(shares_KS, 1), 0).astype(np.uint16)


def _code_lengths(frequencies_KS: npt.NDArray[np.uint16]) -> Numbers:
    wide_KS = frequencies_KS.astype(np.float64)
    shares_KS = np.maximum(wide_KS / wide_KS.sum(1, keepdims=True), 2.0**-PRECISION_BITS)
    lengths_KS: Numbers = np.rint(-np.log2(shares_KS) * LENGTH_STEPS) / LENGTH_STEPS
    return lengths_KS


def encode_rows(matrices: Sequence[Integers], tables: RowTables, top: int) -> bytes:
    """The integers of all matrices, R, C each, as one string of words.

    Raises:
        CoderError: constriction is not installed.
    """
    coder, models = package("constriction").stream.stack.AnsCoder(), tables.models()
    parts = [
        (matrix_RC[classes_R == k].ravel(), model)
        for matrix_RC, classes_R in zip(matrices, _split(tables.classes, [len(m) for m in matrices]), strict=True)
        for k, model in enumerate(models)
    ]
    # A stack: what goes in last comes out first.
    for integers, model in reversed(parts):
        coder.encode_reverse(integers.astype(np.int32) + top, model)
    words: bytes = coder.get_compressed().astype("<u4").tobytes()
    return words


def decode_rows(words: bytes, tables: RowTables, shapes: Sequence[tuple[int, int]], top: int) -> Integers:
    """What `encode_rows` was given, one matrix after the other in one vector.

    Args:
        words: What it returned.
        tables: Checked; with as many rows as the shapes.
        shapes: Rows and columns of every matrix.
        top: Largest integer.

    Raises:
        CoderError: constriction is not installed; or the words hold less or more than these integers.
    """
    columns_R = np.repeat([columns for _, columns in shapes], [rows for rows, _ in shapes])
    # The coder begins at zero, where the alphabet's first symbol costs nothing: a run of it at the end is free. Under
    # tables that were made for their rows that is half at most, so half of what the cheapest symbols take is needed.
    least = float((columns_R * tables.symbol_bits().min(1)[tables.classes]).sum()) / 2
    # Before anything of the claimed size is made.
    if least > 8 * len(words) + 2 * PRECISION_BITS or len(words) % 4:
        raise CoderError(f"{len(words)} bytes for integers of {least / 8:.0f} at least")
    stack = package("constriction").stream.stack
    try:
        coder = stack.AnsCoder(np.frombuffer(words, "<u4").astype(np.uint32))
    except ValueError as error:
        raise CoderError(f"no words of the coder ({error})") from error
    models, integers = tables.models(), np.empty(int(columns_R.sum()), np.int8)
    place = 0
    for (rows, columns), classes_R in zip(shapes, _split(tables.classes, [r for r, _ in shapes]), strict=True):
        matrix_RC = integers[place : place + rows * columns].reshape(rows, columns)
        place += rows * columns
        for k, model in enumerate(models):
            if chosen := int((classes_R == k).sum()):
                matrix_RC[classes_R == k] = _decoded(coder, model, chosen * columns, top).reshape(chosen, columns)
    if not coder.is_empty():
        raise CoderError("words are left behind the last integer")
    return integers


def _decoded(coder: Any, model: Any, count: int, top: int) -> Integers:  # noqa: ANN401 - the library has no types
    """The next integers, in pieces: the library's own take four times the room."""
    integers = np.empty(count, np.int8)
    for start in range(0, count, DECODED_AT_ONCE):
        piece = integers[start : start + DECODED_AT_ONCE]
        piece[:] = coder.decode(model, len(piece)) - top
    return integers


def _split(classes_R: npt.NDArray[np.uint8], rows: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
    """The classes of every matrix's rows."""
    place = 0
    for count in rows:
        yield classes_R[place : place + count]
        place += count
