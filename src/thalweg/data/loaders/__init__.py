"""One file a data set: its description ``DATASET`` and the function that loads it."""
