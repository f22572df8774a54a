"""One visible training loop, resumable at any step."""
