"""How the clocks of several cameras relate: by sound, by motion, by hand."""
