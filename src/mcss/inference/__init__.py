"""A trained model on images, videos and captures: poses, overlays, exported files."""
