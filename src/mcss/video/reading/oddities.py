"""What is unusual about a video file and may spoil what is made of it, said to the user together with the way out."""

from mcss.video.reading.decoding import VideoFile

SLOWED = 1.05
"""A video that was filmed at this many times its rate shows its scene in slow motion."""


def oddities(video: VideoFile) -> list[str]:
    """Return a note on each thing that is unusual: clocks that cannot be used, interlaced or mirrored images."""
    notes = []
    if video.stamps is None:
        notes.append(
            f"{video.path}: its time stamps are missing, or leap, or begin anew; its images are taken as evenly "
            f"spaced, {video.rate:.4g} a second: cut it where it was paused"
        )
    if video.filmed_at is not None and video.filmed_at > SLOWED * video.rate:
        slower = video.filmed_at / video.rate
        notes.append(
            f"{video.path}: the phone says that it filmed {video.filmed_at:.4g} images per second, of which the file "
            f"shows {video.rate:.4g}: its times are {slower:.3g} times as long as they were. Restore them first "
            f"(ffmpeg -itsscale {1 / slower:.5g} -i IN.mp4 -c copy -an OUT.mp4)"
        )
    if video.interlaced:
        notes.append(
            f"{video.path}: its images are interlaced, so that edges of what moves look like combs; make whole "
            "images of them first (ffmpeg -i IN -vf bwdif OUT.mp4)"
        )
    if video.mirrored:
        notes.append(
            f"{video.path}: the file says that its images are shown mirrored, which was done; if left and right are "
            "exchanged in the crops, remove the mirroring from the file (its display matrix)"
        )
    return notes
