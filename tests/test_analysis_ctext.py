"""C helpers: a hint that the class of its own token switches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.ctext import gates

LOOP = """
void hints(const uint16_t *tokens, int n, const uint8_t *starts, uint16_t *hint) {{
    for (int i = 0; i < n; ++i) {{
        const uint16_t tok = tokens[{index}];  // for (int j = 0; j < n; j++) {{
        const uint8_t first = starts[tok];
        if ({test}) {{
            {out}[i] = best;
        }}
    }}
}}
int run(void) {{ hints(0, 0, 0, 0); }}
"""


@pytest.mark.parametrize(
    ("index", "test", "out", "count"),
    [
        ("i", "!first && known", "hint", 1),
        ("i - 1", "!first", "hint", 0),
        ("i", "known", "hint", 0),
        ("i", "first", "out_bytes", 0),
    ],
)
def test_a_hint_behind_a_condition(index: str, test: str, out: str, count: int) -> None:
    found = gates(LOOP.format(index=index, test=test, out=out))
    assert len(found) == count
    assert all(gate.lines == (4, 5, 6, 7) and gate.function == {"hints", "run"} for gate in found)


def test_a_class_handed_to_a_function_of_hints() -> None:
    text = """
    void word_hint(bool is_ws, int& out_tok) { if (!is_ws) { out_tok = -1; return; } out_tok = best; }
    void batch(const int64_t* pos, int n, int* out) {
        for (int i = 0; i < n; i++) {
            int64_t p = pos[i];
            auto tok = uint16_t(tokens_[p]);
            bool is_ws = ls_ && ls_[tok];
            int word;
            word_hint(is_ws, word);
            out[i] = word;
        }
    }
    """
    assert [gate.lines for gate in gates(text)] == [(6, 7, 9, 2)]
    assert gates(text.replace("ls_[tok]", "ls_[prev]")) == ()


@given(st.text(alphabet="for(int i=0;<){}tok[]\n\"'/* ", max_size=300))
def test_any_text_is_read(text: str) -> None:
    assert isinstance(gates(text), tuple)
