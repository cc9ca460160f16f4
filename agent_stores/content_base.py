"""`Content`: the base of the content parts, which checks the arguments of their constructors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
from msgspec.structs import force_setattr

from agent_stores import _checks as check
from agent_stores._part_checks import PART_DEPTH, UNKNOWN_FIELDS, check_unknown_fields, part_object

# The constructors' checks, for documents.
Name = Annotated[str, msgspec.Meta(min_length=1)]
TokenCount = Annotated[int, msgspec.Meta(ge=0)]
UnknownFields = Annotated[Mapping[str, Any], msgspec.Meta(max_length=0)]
"""Empty in a document: a decoder that filled it from ``$unknown`` would let a document hide known fields."""


class _CheckedMeta(msgspec.StructMeta):
    """Checks the arguments of constructors. Decoding does not call it: the decoder checks documents."""

    if not TYPE_CHECKING:

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            part = super().__call__(*args, **kwargs)
            part._check()
            return part


class Content(
    msgspec.Struct,
    metaclass=_CheckedMeta,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    repr_omit_defaults=True,
    gc=False,  # it holds JSON data, which has no cycles
):
    """Base of the content parts.

    Attributes:
        additional_properties: JSON-ready data that belongs to the part and has no field of its own.
        unknown_fields: fields that a newer version wrote, written back at the top level of the part; none
            may have the name of a known field.

    Raises:
        ArgumentError: for an empty name, a negative number of tokens, a known field among the unknown ones,
            or data that is nested so deep that the message would have more than 100 levels.
        ArgumentTypeError: for a value of the wrong type, or one that JSON cannot hold.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {}

    additional_properties: Mapping[str, Any] = {}
    unknown_fields: UnknownFields = msgspec.field(default_factory=dict, name=UNKNOWN_FIELDS)

    @property
    def type(self) -> str:
        """The part's type in its JSON."""
        return str(self.__struct_config__.tag)

    def __hash__(self) -> int:
        return hash(self.type)

    def _check(self) -> None:
        kind = type(self)
        for name, checked in (*self._checks.items(), ("additional_properties", part_object)):
            given = getattr(self, name)
            kept = checked(given, f"{kind.__name__}.{name}")
            if kept is not given:
                force_setattr(self, name, kept)
        given = self.unknown_fields
        if given or type(given) is not dict:
            kept = check_unknown_fields(given, f"{kind.__name__}.unknown_fields", kind, PART_DEPTH)
            force_setattr(self, "unknown_fields", kept)
