"""Static program analysis of a parsed script: pure, no I/O, nothing of the script is run."""
