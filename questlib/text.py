"""Title, body and answer become one or more passes of token ids through one shared body."""

import hashlib
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from questlib.cache import keep_once
from questlib.recipe import TextLayout
from questlib.schema import TEXT_COLUMNS

logger = logging.getLogger(__name__)

# What each pass of a layout is made of. A pass's kind is its place in this tuple.
PASSES: dict[str, tuple[tuple[str, ...], ...]] = {
    "joint": (TEXT_COLUMNS,),
    "question": (("question_title", "question_body"),),
    "pair": (("question_title", "question_body"), ("question_title", "answer")),
}
_INT8S, _INT32S = pa.list_(pa.int8()), pa.list_(pa.int32())
_LISTS = {"input_ids": pa.list_(_INT32S), "token_type_ids": pa.list_(_INT8S), "kinds": _INT8S}
_SCHEMA = pa.schema(_LISTS | {"texts": pa.list_(pa.int64()), "length": pa.int32()})
_ROWS_AT_A_TIME = 1_000
# Capitals, because a tokenizer that has lost its lower-casing knows no word that begins with one.
_ENGLISH = "What is a good answer to this question? How do you find out? The people here would like to know."
# Tables of words are padded to round numbers, by 2 % at most; other encoders' tokenizers have as many words by chance.
_LEAST_COVERED = 0.96
_CACHE_FORMAT = "2"  # raised when the same text and layout begin to give other tokens


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """The special tokens a tokenizer puts before, between and after two texts, as ids."""

    prefix: list[int]
    middle: list[int]
    suffix: list[int]

    @property
    def n_outer(self) -> int:
        """How many stand before and after, whatever the number of parts."""
        return len(self.prefix) + len(self.suffix)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """Load an encoder's tokenizer from its folder; a ValueError if it is not of the fast kind."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # what reads tokenizer.json raises nothing more special
        raise ValueError(f"the tokenizer in {folder} must be whole, however: {error}; fetch it anew") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"the tokenizer in {folder} must be a fast one, however: {type(tokenizer)}; add tokenizer.json"
        )
    return tokenizer


def refuse_unfit(tokenizer: PreTrainedTokenizerFast, *, folder: Path, n_embeddings: int) -> None:
    """Refuse a tokenizer that is not the one a body was trained with: it would make noise of every text.

    Args:
        tokenizer: What `load_tokenizer` gave.
        folder: Where it came from.
        n_embeddings: Rows of the table of words that its ids are looked up in.

    Raises:
        ValueError: If it has no padding, ids past the table or for less than nearly all of it, or makes unknowns or
            single letters of ordinary English.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer in {folder} must have a padding token, however it has none; name one")
    ids = tokenizer.get_vocab().values()
    if max(ids, default=0) >= n_embeddings or len(ids) < _LEAST_COVERED * n_embeddings:
        raise ValueError(
            f"the tokenizer in {folder} must belong to the weights, however its {len(ids)} tokens reach id "
            f"{max(ids, default=0)} and the weights know {n_embeddings}; put the encoder's own tokenizer files there"
        )
    tokens = _tokenize([_ENGLISH], tokenizer)[0]
    unknown, n_unlike = tokens.count(tokenizer.unk_token_id), len(set(tokens))  # unknowns are alike if none is named
    n_letters = sum(letter.isalpha() for letter in _ENGLISH)
    if not tokens or unknown > len(tokens) / 10 or n_unlike < len(tokens) / 2 or len(tokens) > n_letters / 2:
        raise ValueError(
            f"the tokenizer in {folder} must read English, however of {_ENGLISH!r} it makes {len(tokens)} tokens, "
            f"{n_unlike} of them unlike and {unknown} unknown; put the encoder's own tokenizer files there"
        )
    named = [name for name in (tokenizer.cls_token, tokenizer.sep_token) if name is not None]
    around = tokenizer.convert_ids_to_tokens(tokenizer("a", "b")["input_ids"])
    if not set(named) <= set(around):
        raise ValueError(
            f"the tokenizer in {folder} must put {named} round texts, however it makes {around} of 'a' and 'b'; put "
            "the encoder's own tokenizer files there"
        )


def joint_lengths(frame: pd.DataFrame, tokenizer: PreTrainedTokenizerFast) -> npt.NDArray[np.int64]:
    """Count the tokens of each row's title, body and answer as one text, special tokens included."""
    counts = [
        len(ids)
        for start in range(0, len(frame), _ROWS_AT_A_TIME)
        for ids in _tokenize(_join(frame.iloc[start : start + _ROWS_AT_A_TIME], TEXT_COLUMNS), tokenizer)
    ]
    return np.array(counts, dtype=np.int64) + tokenizer.num_special_tokens_to_add()


def token_coverage(lengths: npt.NDArray, *, limits: tuple[int, ...] = (128, 256, 512)) -> dict[int, float]:
    """Give the share of rows whose text fits each limit, in [0, 1]."""
    return {limit: float(np.mean(lengths <= limit)) for limit in limits}


def encode_passes(
    frame: pd.DataFrame, tokenizer: PreTrainedTokenizerFast, layout: TextLayout, *, cache_folder: str | Path
) -> datasets.Dataset:
    """Tokenise a table with nulls filled into passes, memory-mapped from an Arrow file per text, tokenizer and layout.

    Each row of the frame gives one row: `input_ids` and `token_type_ids` (a list per pass), `kinds` and `texts` (one
    per pass; the latter are equal where the passes are) and `length` (tokens of all passes).
    """
    key = hashlib.sha256(_CACHE_FORMAT.encode())
    key.update(pd.util.hash_pandas_object(frame[list(TEXT_COLUMNS)], index=False).to_numpy().tobytes())
    key.update(tokenizer.backend_tokenizer.to_str().encode())
    key.update(repr(sorted(asdict(layout).items())).encode())
    path = Path(cache_folder) / f"passes-{key.hexdigest()[:32]}.arrow"

    def read(kept: Path) -> datasets.Dataset:
        passes = datasets.Dataset.from_file(str(kept))
        if len(passes) != len(frame):
            raise ValueError(f"it holds {len(passes)} rows of {len(frame)}")
        return passes

    return keep_once(path, lambda temporary: _write_passes(temporary, frame, tokenizer, layout), read)


def _write_passes(path: Path, frame: pd.DataFrame, tokenizer: PreTrainedTokenizerFast, layout: TextLayout) -> None:
    special = find_special_tokens(tokenizer)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        for start in range(0, len(frame), _ROWS_AT_A_TIME):
            part = frame.iloc[start : start + _ROWS_AT_A_TIME]
            rows = _encode_rows(part, tokenizer, layout, special)
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SCHEMA))
            logger.info("tokenised %d of %d rows", start + len(part), len(frame))


def _encode_rows(
    frame: pd.DataFrame, tokenizer: PreTrainedTokenizerFast, layout: TextLayout, special: SpecialTokens
) -> list[dict]:
    rows: list[dict] = [
        {"input_ids": [], "token_type_ids": [], "kinds": [], "texts": [], "length": 0} for _ in range(len(frame))
    ]
    for kind, columns in enumerate(PASSES[layout.layout]):
        texts = [_join(frame, columns)] if layout.separator == "space" else [frame[name].tolist() for name in columns]
        tokens = [_tokenize(column, tokenizer) for column in texts]
        for row, parts in zip(rows, zip(*tokens, strict=True), strict=True):
            for ids, types in build_passes(list(parts), layout, special):
                row["input_ids"].append(ids)
                row["token_type_ids"].append(types)
                row["kinds"].append(kind)
                row["texts"].append(_name_text(ids))
                row["length"] += len(ids)
    return rows


def _name_text(ids: list[int]) -> int:
    # A number of 64 bits: passes that say the same have the same, and no others.
    digest = hashlib.blake2b(np.asarray(ids, dtype=np.int32).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _join(frame: pd.DataFrame, columns: tuple[str, ...]) -> list[str]:
    return frame[list(columns)].agg(" ".join, axis=1).tolist()


def _tokenize(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    # verbose=False: a text longer than the body can read is cut below, so the tokenizer's warning would mislead.
    # A special token's name in a text, such as [SEP], is a word like others.
    return tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False, split_special_tokens=True)[
        "input_ids"
    ]


def find_special_tokens(tokenizer: PreTrainedTokenizerFast) -> SpecialTokens:
    """Ask a tokenizer what it puts round two known texts, because families differ: one separator, or two."""
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "b"))
    both = tokenizer("a", "b")["input_ids"]
    start = next(i for i in range(len(both)) if both[i : i + len(first)] == first)
    end = next(i for i in range(len(both) - len(second), -1, -1) if both[i : i + len(second)] == second)
    return SpecialTokens(prefix=both[:start], middle=both[start + len(first) : end], suffix=both[end + len(second) :])


def build_passes(
    parts: list[list[int]], layout: TextLayout, special: SpecialTokens
) -> list[tuple[list[int], list[int]]]:
    """Put the token ids of one pass's parts together, cut to `max_length` or spread over windows of that length.

    Each pass is its token ids and token types. The last part's type is 1 where there are several parts.
    """
    budget = layout.max_length - special.n_outer - len(special.middle) * (len(parts) - 1)
    if not layout.stride:
        limits = _share_budget([len(part) for part in parts], budget, layout)
        parts = [_cut(part, limit, layout.head_share) for part, limit in zip(parts, limits, strict=True)]
    ids, types = list(parts[0]), [0] * len(parts[0])
    for number, part in enumerate(parts[1:], start=1):
        ids += special.middle + part
        types += [0] * len(special.middle) + [int(number == len(parts) - 1)] * len(part)
    room = layout.max_length - special.n_outer
    step = room - layout.stride
    n_windows = min(layout.max_windows, 1 + max(0, -(-(len(ids) - room) // step)))
    return [
        (
            special.prefix + ids[start : start + room] + special.suffix,
            [0] * len(special.prefix) + types[start : start + room] + [types[-1] if types else 0] * len(special.suffix),
        )
        for start in range(0, n_windows * step, step)
    ]


def _share_budget(lengths: list[int], budget: int, layout: TextLayout) -> list[int]:
    if len(lengths) == 1:
        return [budget]
    title = min(layout.title_tokens, budget)
    rest = budget - title
    limits = [title, rest] if len(lengths) == 2 else [title, round(rest * layout.body_share)]
    limits += [budget - sum(limits)] * (len(lengths) - len(limits))
    used = [min(length, limit) for length, limit in zip(lengths, limits, strict=True)]
    for part in range(len(lengths)):  # what one part leaves over, the next ones that need it take
        used[part] += min(lengths[part] - used[part], budget - sum(used))
    return used


def _cut(ids: list[int], limit: int, head_share: float) -> list[int]:
    if len(ids) <= limit:
        return ids
    n_head = round(limit * head_share)
    return ids[:n_head] + ids[len(ids) - limit + n_head :]
