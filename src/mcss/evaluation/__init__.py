"""Evaluation: predictions of a split, their errors and retrieval scores, and reports of them."""
