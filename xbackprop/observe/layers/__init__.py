"""What each layer of a network of any kind makes of one sample."""
