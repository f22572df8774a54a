"""Your own synchronised videos, with or without 3D labels beside them."""
