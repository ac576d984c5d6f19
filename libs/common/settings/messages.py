"""Turns pydantic's validation errors into ours: one line for each variable, which says
what the value should be. Values are never quoted: they may be secrets."""

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from libs.common.errors import SettingError

# Errors that follow from the error of another variable.
_CONSEQUENCES = {"default_factory_not_called"}


class SettingErrorCarrier(ValueError):
    """Carries a SettingError through pydantic, which passes on only ValueErrors."""

    def __init__(self, variable: str, problem: str, fix: str) -> None:
        self.setting_error = SettingError(variable, problem, fix)
        super().__init__(str(self.setting_error))


def setting_errors(
    model: type[BaseModel], error: ValidationError
) -> list[SettingError]:
    """One error for each invalid variable, in the order of the fields."""
    found: dict[str, SettingError] = {}
    for detail in error.errors(include_url=False, include_input=False):
        if detail["type"] in _CONSEQUENCES:
            continue
        context: dict[str, Any] = detail.get("ctx", {})
        cause = context.get("error")
        if isinstance(cause, SettingErrorCarrier):
            one = cause.setting_error
        else:
            one = _described(model, str(detail["loc"][0]) if detail["loc"] else "")
        found.setdefault(one.variable, one)
    return list(found.values())


def _described(model: type[BaseModel], variable: str) -> SettingError:
    fields = (f for f in model.model_fields.values() if f.alias == variable)
    field = next(fields, None)
    expected = field and _expected(field)
    if field is None or not expected:
        fix = "See the configuration table in README.md"
        return SettingError(variable or model.__name__, "is not valid", fix)
    default = ""
    if field.default is not None and field.default_factory is None:
        value = field.default
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        default = f" for the default, {shown}"
    return SettingError(
        variable, f"is not {expected}", f"Correct it, or unset it{default}"
    )


def _expected(field: FieldInfo) -> str:
    """What a value should be: `a whole number from 1 to 65535`. Empty if unknown."""
    kind = _kind(field.annotation)
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if kind is bool:
        return "true or false"
    if kind in {int, float}:
        number = "a whole number" if kind is int else "a number"
        return f"{number} {_range(_bounds(field))}".rstrip()
    if (shortest := _bounds(field).get("min_length")) is not None:
        return f"at least {shortest} characters long"
    return field.description or ""


def _kind(annotation: Any) -> Any:
    """The annotation without `| None`."""
    if get_origin(annotation) in {Union, UnionType}:
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return kinds[0]
    return annotation


def _bounds(field: FieldInfo) -> dict[str, Any]:
    names = ("ge", "gt", "le", "min_length")
    return {
        name: getattr(each, name)
        for each in field.metadata
        for name in names
        if hasattr(each, name)
    }


def _range(bounds: dict[str, Any]) -> str:
    if "ge" in bounds and "le" in bounds:
        return f"from {bounds['ge']} to {bounds['le']}"
    if "gt" in bounds and "le" in bounds:
        return f"above {bounds['gt']} and up to {bounds['le']}"
    return ""
