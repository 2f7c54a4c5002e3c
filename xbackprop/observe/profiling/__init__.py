"""Where the time of a training step goes: calls, operations, bytes, transfers, op by op."""
