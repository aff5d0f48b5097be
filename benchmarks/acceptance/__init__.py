"""The acceptance grid: every way of training that the watch promises to bear, checked against sums done by hand."""
