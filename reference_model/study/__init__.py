"""Ablations on the demo corpus after the claims of five published Hymba systems: docs/hymba.md."""
