"""What touches tensors and is shared by the rooms above: sums, the parameter table, hooks, ranks, random state."""
