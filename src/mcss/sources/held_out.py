"""Subjects or sequences of a data set's training split that are held out for validation."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from mcss.data.schema import Selector

Sequences = Iterable[tuple[str, str]]
"""(subject, sequence) pairs."""


def train_and_validation(
    subjects: Sequence[str], held_out: Sequence[str], sequences: Sequences
) -> dict[str, tuple[Selector, ...]]:
    """Return the splits ``train`` and, if something is held out, ``validation``.

    Args:
        subjects: The training subjects.
        held_out: Subjects such as ``S8``, or sequences such as ``S8/Walking*``.
        sequences: All sequences of the data set, which decide what is left of a subject.

    Raises:
        ValueError: Something held out is not among the training subjects, or nothing is left to train on.

    Example:
        >>> splits = train_and_validation(("S1", "S8"), ("S8/Walk*",), [("S8", "Walk"), ("S8", "Eat"), ("S1", "Eat")])
        >>> splits["train"][1].sequences, splits["validation"][0].sequences
        (('Eat',), ('Walk*',))
    """
    if not held_out:
        return {"train": (Selector(subjects=tuple(subjects)),)}
    whole = [name for name in held_out if "/" not in name]
    patterns: dict[str, list[str]] = {}
    for name in held_out:
        subject, slash, pattern = name.partition("/")
        if subject not in subjects:
            raise ValueError(
                f"validation: expected training subjects ({', '.join(subjects)}) or SUBJECT/SEQUENCE, got {name!r}"
            )
        if slash:
            patterns.setdefault(subject, []).append(pattern)
    kept = [subject for subject in subjects if subject not in whole and subject not in patterns]
    train = [Selector(subjects=tuple(kept))] if kept else []
    validation = [Selector(subjects=tuple(whole))] if whole else []
    for subject, globs in patterns.items():
        own = [sequence for of, sequence in sequences if of == subject]
        left = tuple(name for name in own if not any(fnmatchcase(name, glob) for glob in globs))
        if len(left) == len(own):
            raise ValueError(f"validation: no sequence of {subject} is called {' or '.join(globs)}")
        validation.append(Selector(subjects=(subject,), sequences=tuple(globs)))
        if left and subject not in whole:
            train.append(Selector(subjects=(subject,), sequences=left))
    if not train:
        raise ValueError("validation: nothing is left to train on; hold out less")
    return {"train": tuple(train), "validation": tuple(validation)}
