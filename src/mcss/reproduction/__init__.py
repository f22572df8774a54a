"""The paper's tables and figures, one after the other, on any capture: what `mcss reproduce` does."""
