"""Kernels for the CPU; imported by dispatch at the first op there."""
