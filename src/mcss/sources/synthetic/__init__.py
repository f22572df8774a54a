"""The built-in multi-view capture of synthetic people."""
