"""Read a YAML file that anybody may have written: plain data, or a one-line `DataError`."""

from pathlib import Path

import yaml

from vovnet.data._common import one_line, read_text
from vovnet.errors import DataError

MAX_YAML_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """Without merge keys, by which a short file can grow without bound."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse "<<"; called for every mapping before it is made."""
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    problem="merge key << is refused", problem_mark=key.start_mark
                )
        super().flatten_mapping(node)


def read_yaml(path: str | Path, limit: int = MAX_YAML_BYTES) -> object:
    """What a YAML file holds, in plain lists, mappings, texts, numbers and dates.

    Raises `DataError` if it is missing, no regular file, over `limit` bytes, not UTF-8, or not
    YAML without tags and merge keys. The message has line and column, never the file's own lines.
    """
    path = Path(path)
    text = read_text(path, limit)
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise DataError(f"{one_line(path)}: bad YAML ({_reason(error)}); mend it") from error
    except RecursionError as error:
        raise DataError(f"{one_line(path)}: bad YAML (nested too deeply); mend it") from error
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # From values that look like a date or number, or carry a tag, and are none.
        raise DataError(f"{one_line(path)}: bad YAML ({one_line(error)}); mend it") from error


def _reason(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return one_line(str(error).partition("\n")[0])
    what, mark = one_line(error.problem or error.context), error.problem_mark or error.context_mark
    return what if mark is None else f"{what}, line {mark.line + 1} column {mark.column + 1}"
