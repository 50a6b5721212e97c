"""Run one untrusted command apart from the machine: see `runner.run` and `establish.establish`.

This file imports nothing: the stage runs inside of the sandbox with only this package in reach.
"""
