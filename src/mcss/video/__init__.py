"""From a video file to crops of the person in it: decoding, detecting, tracking, cropping, and synchronising views."""
