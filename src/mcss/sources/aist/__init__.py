"""AIST++ as released: annotations of the dances of the AIST Dance Video Database, and their videos."""
