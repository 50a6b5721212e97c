#include <stdint.h>

/* Hints for the tokens of a chunk; those inside words are given only where a word goes on. */
void hints_of(const uint16_t *tokens, int64_t n, const uint8_t *starts_word, uint16_t *hint_token) {
    uint16_t last = 0;
    for (int64_t i = 0; i < n; ++i) {
        const uint16_t tok = tokens[i];
        const uint8_t new_word = starts_word[tok];
        if (!new_word) {
            hint_token[i] = last;
        }
        last = tok;
    }
}
