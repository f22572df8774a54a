"""Importers: original recordings → captures, one module for each kind of original."""


class ImportProblem(ValueError):
    """Footage cannot be imported; the message names the file, what was expected and the way out."""
