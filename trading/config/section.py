"""What every branch of the settings tree is, and how a setting says what it is for."""

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A frozen branch of the tree that refuses unknown keys and silent type conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def about(description: str, *, env: str | None = None) -> FieldInfo:
    """Return a field's one sentence and, where it has one, its environment variable."""
    extra: JsonDict | None = {"environment": env} if env else None
    field: FieldInfo = Field(description=description, json_schema_extra=extra)
    return field
