"""Renderers of the one report document."""
