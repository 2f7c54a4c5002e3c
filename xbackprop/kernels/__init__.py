"""Faster versions of ops, one package for each kind of device."""
