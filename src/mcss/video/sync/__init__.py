"""Synchronising views: how the clocks of several cameras relate, found by sound, by motion, or given by hand."""
