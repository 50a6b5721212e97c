"""Runs inside the sandbox, beside the submission: a CUDA machine that is none, and a record of what the script does.

The package imports nothing outside itself but torch, numpy and the standard library, and only relatively: it is shown
to the sandboxed interpreter as a folder of another name and started as `python -P -m NAME PLAN.json`.
"""
