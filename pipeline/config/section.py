"""What every section of the configuration is: frozen, without unknown keys, its defaults written as in the file."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        # pydantic takes true for 1 and `yes` for true: `concurrency: true` is a mistake, and YAML 1.2 has no `yes`.
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and wanted in (int, int | None):
            raise ValueError("should be a number")
        if wanted is bool and not isinstance(value, bool) and value not in ("true", "false"):
            raise ValueError("should be true or false (yes, no, on and off are text in YAML 1.2)")
        return value


def written(default: Any) -> Any:
    """A default as the file would write it ("1MiB", "25s"), validated like it. Any: a type checker would see the text beside what it becomes."""
    return Field(default)
