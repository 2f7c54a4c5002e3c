"""Runnable examples, python -m xbackprop.examples.<name>; README.md has their order."""
