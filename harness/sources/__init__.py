"""Readers of untrusted bytes: every one bounded, none of them executes anything."""
