"""Batches of training steps: which images, how they are decoded, kept and augmented."""
