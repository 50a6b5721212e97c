"""Documents that stand on both sides of a split."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.data.overlap import OverlapCounter, whole_documents
from harness.sources import shards

documents = st.lists(st.lists(st.integers(2, 4), max_size=40), max_size=8)


@given(documents, documents, st.integers(1, 30))
def test_overlap_agrees_with_sets(train: list[list[int]], validation: list[list[int]], cut: int) -> None:
    def flat(bodies: list[list[int]]) -> shards.Tokens:
        return np.array([token for body in bodies for token in (1, *body)], dtype=np.uint16)

    counter = OverlapCounter([flat(validation)])
    tokens = flat(train)
    for start in range(0, tokens.size, cut):
        counter.add(tokens[start : start + cut])
    result = counter.finish()
    known = {tuple(body) for body in validation if body}
    assert result.train_documents == sum(tuple(body) in known for body in train)
    assert result.validation_documents == len({tuple(body) for body in train} & known)
    assert result.validation_repeats == sum(1 for body in validation if body) - len(known)


@given(documents, st.integers(1, 20))
def test_documents_survive_any_cut_into_shards(bodies: list[list[int]], cut: int) -> None:
    tokens = np.array([token for body in bodies for token in (1, *body)], dtype=np.uint16)
    parts = [tokens[start : start + cut] for start in range(0, tokens.size, cut)]
    joined = [
        found.tokens[a + 1 : b].tolist()
        for found in whole_documents(parts)
        for a, b in zip(found.starts, found.ends, strict=True)
    ]
    assert joined == bodies
