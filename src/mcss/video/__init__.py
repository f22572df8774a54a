"""From a video file to crops of the person in it."""
