"""How the arguments of a verb are read, and how they look in its help.

tyro derives options from signatures and dataclasses. The rules here say how it shows them: a value is named by what it
is (`--split SPLIT`, `--size N`) instead of by its Python type; a default that says nothing (None, False, an empty list)
is left out; a long list of choices stands in the text instead of in front of it.
"""

import inspect
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import fill
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints, overload

import tyro
from docstring_parser import parse as parsed_docstring
from tyro.conf import DisallowNone, FlagCreatePairsOff, Positional, UseAppendAction, arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)
from tyro.extras import SubcommandApp

from mcss.cli.verbs import UnknownVerbError

LONGEST_CHOICES = 32
"""A list of choices with more characters than this is moved into the text of its option."""

Function = TypeVar("Function", bound=Callable[..., None])


@dataclass(frozen=True)
class Command:
    """A function that is a verb."""

    function: Callable[..., None]
    help: str
    """The text above the options in the verb's help; its first paragraph is the summary."""
    without: frozenset[str] = frozenset()
    """Settings that are no options here and keep their defaults."""

    def read(self, prog: str, args: Sequence[str]) -> Callable[[], None]:
        """Return the function with its arguments; for `--help` and for wrong arguments the program ends here."""
        _hidden_now.append(self.without)
        try:
            read = tyro.cli(
                self.function, prog=prog, description=_wrapped(self.help), args=args, config=CONFIG, registry=REGISTRY
            )
        finally:
            _hidden_now.pop()
        return cast(Callable[[], None], read)


class Verbs:
    """Verbs by name; a verb is a function, or a group of further verbs."""

    def __init__(self) -> None:
        self.help = ""
        self.word = "VERB"
        """What the entries are, as the usage names them."""
        self.entries: dict[str, Command | Verbs] = {}

    @overload
    def command(self, function: Function) -> Function: ...

    @overload
    def command(self, *, name: str, help: str = "") -> Callable[[Function], Function]: ...

    def command(self, function: Any = None, *, name: str = "", help: str = "") -> Any:
        """Make a function a verb, named after the function and explained by its docstring unless said otherwise."""

        def register(function: Callable[..., None]) -> Callable[..., None]:
            text = help or parsed_docstring(function.__doc__ or "").description or ""
            self.entries[name or function.__name__] = Command(function, text)
            return function

        return register if function is None else register(function)

    def group(self, verbs: "Verbs", *, name: str, word: str, help: str) -> None:
        """Make `verbs` a group within this one, with a `word` for its entries, such as METHOD."""
        verbs.help, verbs.word = help, word
        self.entries[name] = verbs

    def named(self, name: str, prog: str) -> tuple[str, "Command | Verbs"]:
        """Return the entry of that name, in which hyphens and underscores count as the same, and how it is spelt."""
        for known, entry in self.entries.items():
            if known.replace("-", "_") == name.replace("-", "_"):
                return known, entry
        raise UnknownVerbError(prog, self.word.lower(), name, self.entries)

    def summaries(self) -> dict[str, str]:
        """Return the first paragraph of the help of each entry."""
        return {name: entry.help.split("\n\n")[0] for name, entry in self.entries.items()}

    def complete(self, prog: str, description: str, args: Sequence[str]) -> None:
        """Print or write the completions for a shell, as `--tyro-print-completion SHELL` demands."""
        self._as_tyro_app().cli(prog=prog, description=description, args=args, config=CONFIG, registry=REGISTRY)

    def _as_tyro_app(self) -> SubcommandApp:
        app = SubcommandApp()
        for name, entry in self.entries.items():
            if isinstance(entry, Verbs):
                app.command(entry._as_tyro_app(), name=name, help=entry.help)
            else:
                app.command(name=name, help=entry.help)(entry.function)
        return app


CONFIG = (DisallowNone,)
# Typed as Any, since mypy knows these as annotations alone.
POSITIONAL: Any = Positional
APPENDED: Any = UseAppendAction
ONE_FLAG: Any = FlagCreatePairsOff
ANNOTATED: Any = Annotated

REGISTRY = ConstructorRegistry()


def existing(
    kind: type[str] | type[Path], message: str, elsewhere: Callable[[str], bool] = lambda name: False
) -> PrimitiveConstructorSpec[Any]:
    """Return an annotation for a path that must exist; the address of an object store is not looked up.

    The check is part of reading the arguments, before anything heavy is loaded.

    Args:
        kind: What the path becomes.
        message: What is said where there is no such path, which stands for `{path}`.
        elsewhere: Which names are no paths and not looked up either.
    """

    def read(words: list[str]) -> str | Path:
        if "://" not in words[0] and not elsewhere(words[0]) and not Path(words[0]).expanduser().exists():
            raise FileNotFoundError(message.format(path=words[0]))
        return kind(words[0])

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


@REGISTRY.primitive_rule
def _number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read a number; the message for anything else says what kind of number is expected."""
    if info.type not in (int, float):
        return None
    kind, number = ("a whole number", int) if info.type is int else ("a number", float)

    def read(words: list[str]) -> int | float:
        try:
            return number(words[0])
        except ValueError:
            raise ValueError(f"expected {kind}, got {words[0]!r}") from None

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="N" if info.type is int else "NUMBER",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, number),
        str_from_instance=lambda value: [str(value)],
    )


@REGISTRY.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read `T | None` as T, since None only stands for an option that is not given."""
    members = [member for member in _members(info.type) if member is not NoneType]
    if len(members) != 1 or members[0] is info.type:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(members[0], info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    shown = spec.str_from_instance
    return replace(spec, str_from_instance=lambda value: [] if value is None else shown(value))


def _without_marks(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_dataclass(annotation: Any) -> bool:
    return is_dataclass(_without_marks(annotation))


def _members(annotation: Any) -> Sequence[Any]:
    """Return the types of a union, or the one type there is."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]


@REGISTRY.struct_rule
def _function_as_command(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Bind a function to its arguments instead of calling it, and show its parameters as described above.

    The fields of its first dataclass stand among its own options, those of further ones under a title of their own.
    """
    if not inspect.isfunction(info.type):
        return None
    function: Any = info.type
    hints = get_type_hints(function, include_extras=True)
    texts = {text.arg_name: text.description for text in parsed_docstring(function.__doc__ or "").params}
    fields = []
    for name, parameter in inspect.signature(function).parameters.items():
        default = tyro.MISSING_NONPROP if parameter.default is parameter.empty else parameter.default
        annotation = hints.pop(name)
        if _is_dataclass(annotation) and not any(_is_dataclass(field.type) for field in fields):
            annotation = ANNOTATED[annotation, arg(name="")]
        fields.append(_shown(StructFieldSpec(name, annotation, default, texts.get(name))))
    return StructConstructorSpec(instantiate=partial(partial, function), fields=tuple(fields))


_hidden_now: list[frozenset[str]] = []
"""Settings that are no options of the command whose arguments are read at the moment; the last set counts."""

_shown_now: list[Any] = []
"""Dataclasses whose fields tyro's own rule is listing at the moment."""


@REGISTRY.struct_rule
def _dataclass_as_shown_here(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Show the fields of a dataclass, which tyro's own rule finds, as described above."""
    if not is_dataclass(info.type) or info.type in _shown_now:
        return None
    _shown_now.append(info.type)
    try:
        spec = ConstructorRegistry.get_struct_spec(info)
    finally:
        _shown_now.pop()
    if not isinstance(spec, StructConstructorSpec):
        return None
    return replace(spec, fields=tuple(map(_shown, spec.fields)))


def _shown(spec: StructFieldSpec) -> StructFieldSpec:
    """Add to a field how its value, its default and its choices are shown."""
    if _hidden_now and spec.name in _hidden_now[-1]:
        return replace(spec, type=ANNOTATED[spec.type, tyro.conf.Fixed, tyro.conf.Suppress])
    value, *marks = get_args(spec.type) if get_origin(spec.type) is Annotated else (spec.type,)
    members = [member for member in _members(value) if member is not NoneType]
    if any(map(is_dataclass, members)):  # its title is its own name, without those of the dataclasses around it
        return replace(spec, type=ANNOTATED[spec.type, arg(prefix_name=False)])
    positional, optional = POSITIONAL in marks, spec.default is not tyro.MISSING_NONPROP
    metavar, choices = _metavar(spec.name, members, positional)
    if metavar is not None and positional and optional:
        metavar = f"[{metavar}]"
    if spec.default is True:
        hint: str | None = "(default: on)"
    elif APPENDED in marks:
        metavar, hint = (metavar or "").removesuffix(" ..."), "(may be repeated)"
    elif spec.default is None or spec.default is False or spec.default in ("", ()) or (not optional and positional):
        hint = ""
    else:
        hint = None
    if value is bool and spec.default is False:
        marks.append(ONE_FLAG)
    annotation = ANNOTATED[(value, arg(metavar=metavar, help_behavior_hint=hint), *marks)]
    return replace(spec, type=annotation, helptext=partial(_text, spec.helptext, choices))


def _metavar(name: str, members: Sequence[Any], positional: bool) -> tuple[str | None, tuple[str, ...]]:
    """Return the word that stands for a value of these types, and the choices to list in the text."""
    word = name.rstrip("_").split("_")[-1].upper()
    match [_without_marks(member) for member in members]:
        case [member] if get_origin(member) is tuple:
            inner = get_args(member)
            if inner[-1] is not Ellipsis:
                return " ".join(str(_metavar(name, [kind], positional)[0]) for kind in inner), ()
            metavar, choices = _metavar(name.removesuffix("s"), inner[:1], positional)
            return f"{metavar} ...", choices
        case [member] if member is bool:
            return None, ()
        case [member] if member is int:
            return "N", ()
        case [member] if member is float:
            return "NUMBER", ()
        case [member] if member is Path and not positional:
            return "PATH", ()
        case _ if all(get_origin(member) is Literal for member in members):
            choices = tuple(str(choice) for member in members for choice in get_args(member))
            listed = "{" + ",".join(choices) + "}"
            return (listed, ()) if len(listed) <= LONGEST_CHOICES else (word, choices)
    return word, ()


def _text(text: "str | Callable[[], str | None] | None", choices: Sequence[str]) -> str:
    """Return a help text without the line breaks of the source, followed by the choices."""
    plain = " ".join(((text() if callable(text) else text) or "").split()).replace("``", "`")
    return f"{plain} One of {', '.join(choices)}." if choices else plain


def _wrapped(text: str) -> str:
    """Wrap a text for the terminal.

    It is indented like the text in tyro's boxes; tyro would join lines that start with a letter.
    """
    width = shutil.get_terminal_size().columns - 2
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return "\n".join(fill(paragraph, width, initial_indent="  ", subsequent_indent="  ") for paragraph in paragraphs)
