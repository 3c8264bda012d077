"""What people write of parameters: profiles in YAML, and single values on the command line, read the same way."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from questlib.checks import refuse_unknown

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """YAML as its newer version has it, and of JSON's types only.

    The older one takes 3e-5 for a word, `on` and `no` for true and false, 010 for eight, 1:30 for ninety and
    2026-01-01 for a day.
    """

    yaml_implicit_resolvers = {}  # none of the older one's

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """Build a mapping; of a name that stands there twice, one value would be lost."""
        written = [key.value for key, _ in node.value if key.value != "<<"]
        doubled = sorted({name for name in written if written.count(name) > 1})
        if doubled:
            raise yaml.constructor.ConstructorError(None, None, f"{doubled} stand there twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?\d+(_\d+)*", "-+0123456789"),
    ("float", r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?", "-+.0123456789"),
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"(?:{_pattern})\Z"), list(_first))
_Loader.add_constructor(f"{_TAG}int", lambda loader, node: int(node.value))


class _ValueLoader(_Loader):
    """The same, where * and & are letters: a shell takes the quotes of ["head.*", "*"] away."""

    def fetch_alias(self) -> None:
        """Take a star for the beginning of a word, such as a pattern."""
        self.fetch_plain()

    def fetch_anchor(self) -> None:
        """Take an ampersand for the beginning of a word."""
        self.fetch_plain()


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that maps names to values."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}  # a safe loader, as its base is
        json.dumps(content, skipkeys=True, default=str)  # refuses what holds itself, as an anchor can
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} must be YAML in UTF-8, however: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{path} must map names of parameters to values, however: {content!r:.200}")
    return content


def read_profile(folder: Path, name: str) -> dict[str, Any]:
    """Read a profile: parameters by name out of a folder's YAML file of that name, or of any file ending in .yaml."""
    if name.endswith(".yaml"):
        if not Path(name).is_file():
            raise FileNotFoundError(f"no profile {name}; those that ship are named without .yaml")
        return read_yaml(Path(name))
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    refuse_unknown([name], known=known, what="profile")
    return read_yaml(known[name])


def read_value(text: str) -> Any:  # noqa: ANN401  whatever YAML holds
    """Read a value from the command line as a profile would have it: `1e-5`, `[{name: full, epochs: 3}]`, `a word`.

    Quotes inside may be there or not: a shell or make takes them away. What is no value in YAML is the text as it is;
    where another kind is due, that is refused later, by name.
    """
    loader = _ValueLoader(text)
    try:
        node = loader.get_single_node()
        value = loader.construct_document(node) if node else None
    except (yaml.YAMLError, ValueError):
        return text
    finally:
        loader.dispose()
    # A text without quotes is meant as it was typed: nothing of it is a comment, a tag, or blank.
    is_plain = node is None or (isinstance(node, yaml.ScalarNode) and node.style is None)
    return text if is_plain and (node is None or isinstance(value, str) or node.value != text.strip()) else value
