"""Pure array functions that layers share."""
