"""A function's parameters as a model is told of them (JSON Schema), and as its arguments are checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Optional, get_args, get_origin

import msgspec

from agent_stores._json import json_value
from agent_stores.errors import ArgumentError, ArgumentTypeError

_REFERENCE = "#/$defs/{name}"


class Parameters:
    """The parameters of a function: their schema, and the way from a model's arguments to a call.

    Args:
        function: the function.
        name: the tool's name, for errors.

    Raises:
        ArgumentError: for parameters that a model cannot give: ``*args``, ``**kwargs``, or with annotations
            that cannot be resolved.
        ArgumentTypeError: for a parameter whose type JSON Schema cannot describe.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        try:
            signature = inspect.signature(function, eval_str=True)
        except NameError as error:
            raise ArgumentError(
                f"the tool {name!r} has an annotation that cannot be resolved: {error}; "
                "names in it must be importable from the function's module"
            ) from None
        except (TypeError, ValueError) as error:
            raise ArgumentTypeError(f"the tool {name!r} has no signature that can be read: {error}") from None
        self._parameters = list(signature.parameters.values())
        fields: list[tuple[str, Any, Any]] = []
        for parameter in self._parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise ArgumentError(
                    f"the tool {name!r} takes {parameter}; a model can only give parameters that have names"
                )
            # The function's own default is used where the model gives nothing: here is only a mark.
            default = msgspec.NODEFAULT
            if parameter.default is not parameter.empty:
                default = msgspec.field(default_factory=_unset)
            kind = Any if parameter.annotation is parameter.empty else _described(parameter.annotation)
            if parameter.default is None and kind is not Any:
                kind = Optional[kind]  # noqa: UP045 - so are `unit: str = None` and its like meant
            _check_type(name, parameter.name, kind)
            fields.append((parameter.name, kind, default))
        # A type's name has no space in it: this one cannot be that of a type in the parameters.
        self._struct = msgspec.defstruct(
            f"arguments of {name}", fields, kw_only=True, forbid_unknown_fields=True
        )
        self.schema = self._read_schema()

    def bind(self, arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments of a call, checked and converted to the annotated types.

        A value that does not fit is tried once more by looser rules, as models write numbers as text.

        Raises:
            ArgumentError: when one is missing, unknown, or does not fit.
        """
        try:
            values = msgspec.convert(arguments, self._struct)
        except msgspec.ValidationError as error:
            try:
                values = msgspec.convert(arguments, self._struct, strict=False)
            except msgspec.ValidationError:
                raise ArgumentError(f"the arguments are not valid: {error}") from None
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for parameter in self._parameters:
            value = getattr(values, parameter.name)
            if value is msgspec.UNSET:
                value = parameter.default
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(value)
            else:
                named[parameter.name] = value
        return positional, named

    def _read_schema(self) -> dict[str, Any]:
        references, components = msgspec.json.schema_components([self._struct], ref_template=_REFERENCE)
        own = components.pop(references[0]["$ref"].removeprefix(_REFERENCE.format(name="")))
        own.pop("title", None)
        own.setdefault("required", [])
        for parameter in self._parameters:
            if parameter.default is not parameter.empty:
                add_default(own["properties"][parameter.name], parameter.default)
        return {**own, "$defs": components} if components else own


def _described(annotation: Any) -> Any:
    """`Annotated[T, "text"]` as msgspec knows it: with the text as the description."""
    if get_origin(annotation) is not Annotated:
        return annotation
    kind, *marks = get_args(annotation)
    metas = [mark for mark in marks if isinstance(mark, msgspec.Meta)]
    if not any(meta.description for meta in metas):
        texts = [mark if isinstance(mark, str) else getattr(mark, "description", None) for mark in marks]
        description = next((text for text in texts if isinstance(text, str) and text), None)
        metas += [msgspec.Meta(description=description)] if description else []
    for meta in metas:
        kind = Annotated[kind, meta]
    return kind


def _check_type(tool: str, parameter: str, kind: Any) -> None:
    try:
        msgspec.json.schema(kind)
    except (TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ArgumentTypeError(
            f"the parameter {parameter!r} of the tool {tool!r} has a type that a model cannot be told of: "
            f"{reason}"
        ) from None


def add_default(schema: dict[str, Any], default: Any) -> None:
    """Tell the model of a default, where JSON has it."""
    try:
        schema["default"] = json_value(msgspec.to_builtins(default), "default")
    except (TypeError, ValueError):
        return


def _unset() -> Any:
    return msgspec.UNSET
