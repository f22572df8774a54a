"""Errors that a user can mend; every message says where, what was expected, what came and the way out."""


class MCSSError(ValueError):
    """Something that was given to mcss is missing, damaged or of the wrong kind."""


class CaptureError(MCSSError):
    """A capture cannot be read or written."""


class CheckpointError(MCSSError):
    """A run folder or model file is missing, broken or of another kind."""


class ExportError(MCSSError):
    """A network cannot be exported, or an exported one cannot be run."""


class ImageError(MCSSError):
    """A file or array is no image that mcss can use, or a box lies outside its image."""


class PoseIndexError(MCSSError):
    """A search index is missing, unfinished, or belongs to another model or capture."""


class QueryError(MCSSError):
    """A search query cannot be understood, or names something that is not there."""


class SourceError(MCSSError):
    """Footage, labels or a data set's files cannot be imported."""


class WeightsError(MCSSError):
    """Weights were asked for that are not available, or that do not fit."""
