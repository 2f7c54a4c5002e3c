"""What `xbackprop train` reaches on data that everybody knows, in figures."""
