"""What a run is made of. A new kind is a class, a line here and its recipe in `questlib.recipe`."""

from pathlib import Path
from typing import Any

from questlib.cache import CACHE
from questlib.members.base import Member, read_recipe
from questlib.members.boosted import BoostedMember
from questlib.members.lexical import LexicalMember
from questlib.members.transformer import TransformerMember

MEMBERS: dict[str, type[Member[Any]]] = {
    "transformer": TransformerMember, "lexical": LexicalMember, "boosted": BoostedMember,
}  # fmt: skip


def load_member(folder: str | Path, *, cache_folder: str | Path = CACHE) -> Member[Any]:
    """Read a member of any kind from what `Member.save` wrote, or from a finished fold of a run."""
    return MEMBERS[read_recipe(folder).kind].load(folder, cache_folder=cache_folder)
