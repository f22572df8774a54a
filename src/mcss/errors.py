"""Errors that a user can fix. Every message names the place, what was expected, what was found, and the way out."""


class MCSSError(ValueError):
    """An input to mcss is missing, damaged or of the wrong kind."""


class CaptureError(MCSSError):
    """A capture cannot be read or written."""


class CheckpointError(MCSSError):
    """A run folder or model file is missing, damaged or of another kind."""


class ExportError(MCSSError):
    """A network cannot be exported, or an exported one cannot be run."""


class ImageError(MCSSError):
    """A file or array is not an image that mcss can use, or a bounding box lies outside its image."""


class PoseIndexError(MCSSError):
    """A search index is missing, unfinished, or belongs to another model or capture."""


class QueryError(MCSSError):
    """A search query cannot be parsed, or names something that does not exist."""


class SourceError(MCSSError):
    """Footage, labels or a data set's files cannot be imported."""


class WeightsError(MCSSError):
    """The requested weights are not available or do not fit the network."""
