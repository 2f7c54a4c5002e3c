"""How many comparisons with PyTorch match, module by module: counted, kept, shown in README."""
