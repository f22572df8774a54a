"""Labels that a capture gets without a capture system: from the landmarks of its views."""
