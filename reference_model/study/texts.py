"""The prose of docs/hymba.md that does not depend on results; braces take values."""

from __future__ import annotations

INTRODUCTION = """\
# Hymba's published claims, tried at the scale of a laptop

This page is generated: `nox -s study` runs what is missing and writes it again. Do not edit it.

Five public submissions ([the presets beside them](presets.md)) state what helps a hybrid of attention and scan.
Each claim is tried here on the demo corpus, with variants of the preset `{preset}`, several seeds each. Nothing here
was run on a GPU or on FineWeb. A model of two million parameters that learns for seconds says little about one of 27
million that learns for ten minutes on eight GPUs: a verdict is about this scale and no other.
"""

HOW = """\
## How

- A run is a process of its own with one thread. It trains with its seed, packs the averaged weights at 8 and at 6
  bits, unpacks them, and scores float, int8 and int6 on the same validation text: the first 130 kB, or the whole
  split where an experiment has sequences too long for that. All read the same training tokens in the same order; the
  seed draws the initial weights.
- *Equal seconds* are seconds of the processor (`process_time`): what other programs take is not counted, though
  caches and clocks are shared with them. *Equal tokens*: {tokens:,} for each second asked for, whatever the machine
  does. *Equal parameters*: MLPs are widened or narrowed until the parameters outside the embedding tables differ by
  less than 1 %; the tables below show both counts.
- All experiments run with one seed before the next, one variant of each in turn, so that the moods of a machine fall
  on all variants alike.
- *Peak MiB* is the whole process, Python and torch included, until training ends.
- Test-time training is scored on the first {ttt:,} tokens, beside the same tokens without it.
- **The verdict** follows from Welch's interval of 95 % around the difference of two means over seeds. The whole
  interval on the claimed side: *replicates at this scale*. The whole interval on the other side: *does not replicate
  at this scale*. Otherwise, or with one seed: *cannot be told*. A claim about a ratio is held against its limit in the
  same way, on logarithms. *Beyond noise* in the tables: zero is outside the interval of the difference to the
  variant that has none there.

```
nox -s study                                                   # every experiment, three seeds, 20 s
nox -s study -- rate depth --seconds 60 --seeds 5 --workers 2 --minutes 90
python -m reference_model study list                           # experiments, runs, seconds
python -m reference_model study page                           # page and plots again, from the results
```

Results are added to `docs/hymba/results.jsonl`, a line for each run. A run that is there, with the
same code, declaration, length and machine, is not done again. One that fails is told, kept as failed, and tried again
the next time.
"""
