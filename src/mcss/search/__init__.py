"""An index of embeddings, and queries by pose or movement."""
