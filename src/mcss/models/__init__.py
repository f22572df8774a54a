"""Networks, and trained models that make predictions."""
