"""Landmarks of a body in the images of a capture, and the views of an instant turned onto each other."""
