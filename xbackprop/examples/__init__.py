"""Runnable examples: python -m xbackprop.examples.<name>."""
