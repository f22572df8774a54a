"""How results are drawn: the style, plots, skeletons and HTML pages."""
