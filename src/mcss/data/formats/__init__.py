"""Files of 3D labels and poses, as other programs write and read them."""
