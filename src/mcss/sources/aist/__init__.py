"""AIST++ as released: annotations for the dances of the AIST Dance Video Database, and their videos."""
