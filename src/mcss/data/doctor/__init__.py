"""Checks of a capture: what is wrong with its images, labels and synchrony."""
