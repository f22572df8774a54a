"""Where captures come from: your own videos, the public data sets, the built-in synthetic people."""
