"""The paper's tables and figures, the main comparison and ablations."""
