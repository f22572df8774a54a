"""The web page of ``mcss serve``: pictures and videos to poses, search by pose, two videos compared."""
