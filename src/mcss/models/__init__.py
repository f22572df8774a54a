"""Networks, and a trained one in use."""
