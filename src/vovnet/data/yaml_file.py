"""Read a YAML file that anybody may have written: plain data, or a one-line `DataError`."""

from pathlib import Path

import yaml

from vovnet.errors import DataError
from vovnet.text import one_line, read_text

MAX_YAML_BYTES = 1_000_000
_MAX_NODES = 1_000_000  # with every alias written out
_AS_WRITTEN = "names"  # the key whose texts are names, whatever YAML takes them for
_TEXT, _NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Without merge keys and endless aliases, by which a short file can grow without bound, and
    with class names as they are written: no, 012 and 12:30 are a truth value, 10 and 750 to YAML.
    """

    def get_single_node(self) -> yaml.Node | None:
        """The file as nodes, before anything is made of them."""
        node = super().get_single_node()
        if node is not None:
            _count(node, {})
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == _AS_WRITTEN and isinstance(value, yaml.CollectionNode):
                    _keep_texts(value)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse "<<", and a key that comes twice; called for every mapping before it is made."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"key {key.value} comes twice", problem_mark=key.start_mark
                    )
                seen.add((key.tag, key.value))
            if key.tag == _MERGE:
                raise yaml.constructor.ConstructorError(
                    problem="merge key << is refused", problem_mark=key.start_mark
                )
        super().flatten_mapping(node)


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are with every alias written out; refuses too many, and loops."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = _MAX_NODES + 1  # as long as it is being counted: a part of itself is endless
    count = 1
    if isinstance(node, yaml.SequenceNode):
        count += sum(_count(item, known) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        count += sum(_count(key, known) + _count(value, known) for key, value in node.value)
    if count > _MAX_NODES:
        raise yaml.constructor.ConstructorError(
            problem="aliases that repeat too much", problem_mark=node.start_mark
        )
    known[id(node)] = count
    return count


def _keep_texts(names: yaml.CollectionNode) -> None:
    """Make the items of a list, or a mapping's keys and values, texts as they are written."""
    pairs = names.value if isinstance(names, yaml.MappingNode) else [names.value]
    for node in (node for pair in pairs for node in pair):
        if isinstance(node, yaml.ScalarNode) and (node.value or node.tag != _NULL):
            node.tag = _TEXT


def parse_yaml(text: str, where: str) -> object:
    """What YAML text holds, in plain lists, mappings, texts, numbers and dates; the items of a
    top-level `names` are texts.

    Raises `DataError`, beginning with `where`, for what is not YAML without tags and merge keys.
    The message has line and column, never the text's own lines.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise DataError(f"{where}: bad YAML ({_reason(error)}); mend it") from error
    except RecursionError as error:
        raise DataError(f"{where}: bad YAML (nested too deeply); mend it") from error
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # From values that look like a date or number, or carry a tag, and are none.
        raise DataError(f"{where}: bad YAML ({one_line(error)}); mend it") from error


def read_yaml(path: str | Path, limit: int = MAX_YAML_BYTES) -> object:
    """What a YAML file holds, as `parse_yaml` says; a `DataError` too if it is missing, no regular
    file, over `limit` bytes, or not UTF-8."""
    path = Path(path)
    return parse_yaml(read_text(path, limit), one_line(path))


def _reason(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return one_line(str(error).partition("\n")[0])
    what, mark = one_line(error.problem or error.context), error.problem_mark or error.context_mark
    return what if mark is None else f"{what}, line {mark.line + 1} column {mark.column + 1}"
