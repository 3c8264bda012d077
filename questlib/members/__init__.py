"""What a run is made of. A new kind is a class, a line here and its recipe in `questlib.recipe`."""

from pathlib import Path

from questlib.cache import CACHE
from questlib.members.base import Member
from questlib.members.lexical import LexicalMember
from questlib.members.transformer import TransformerMember
from questlib.recipe import read_member
from questlib.run_folder import RECIPE, read_json

MEMBERS: dict[str, type[Member]] = {"transformer": TransformerMember, "lexical": LexicalMember}


def load_member(folder: Path, *, cache_folder: Path = CACHE) -> Member:
    """Read a member of any kind from what `Member.save` wrote."""
    recipe = read_member(read_json(folder / RECIPE))
    return MEMBERS[recipe.kind].load(folder, cache_folder=cache_folder)
