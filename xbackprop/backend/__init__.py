"""Where arrays live: the device shim, usable without the rest of the package."""
