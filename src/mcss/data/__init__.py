"""A capture on disk, and the batches of a training step."""
