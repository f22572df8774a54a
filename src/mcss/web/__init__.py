"""The web page of `mcss serve`."""
