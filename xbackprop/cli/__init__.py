"""The command line: `xbackprop train`, `xbackprop doctor` and their kin."""
