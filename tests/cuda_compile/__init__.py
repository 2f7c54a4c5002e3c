"""Compile every CUDA kernel on a machine without a GPU, and compare registers with a table."""
