"""Write the sample: a small invented data set in the QUEST schema, on which training visibly learns.

Run as `python notebooks/sample/make_sample.py [folder]`. The words and the opinions they earn are in phrases.toml; what
a text is made of and how it is rated is here. The same seed gives the same bytes: only the standard library draws
numbers, because its generator, unlike numpy's distributions, is fixed across versions.
"""

import csv
import html
import logging
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from questlib.schema import TARGETS

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
PHRASES = tomllib.loads((FOLDER / "phrases.toml").read_text(encoding="utf-8"))
PARTS: dict[str, list[str]] = PHRASES["parts"]
LANGUAGE_HOSTS = ("english.stackexchange.com", "ell.stackexchange.com")
TEST_ONLY_HOSTS = tuple(host for host, words in PHRASES["hosts"].items() if not words["weight"])
TEXT_HEADER = (
    "qa_id question_title question_body question_user_name question_user_page "
    "answer answer_user_name answer_user_page url category host"
).split()

# How many train questions have 1, 2, 3, 4 answers: 165 questions, 240 rows. The test has one row per question.
TRAIN_ANSWERS = (1,) * 110 + (2,) * 40 + (3,) * 10 + (4,) * 5
N_TEST = 60
# Enough positive rows in the two rare columns for question-grouped folds to hold some.
RARE_INTENTS = {"train": {"spelling": 9, "statement": 7}, "test": {"spelling": 2, "statement": 2}}

# Scales as in the competition: yes or no, three levels from 1/3, five levels from 1/5; each is averaged over raters.
THREE_LEVELS = (
    "question_asker_intent_understanding question_body_critical question_interestingness_others "
    "question_interestingness_self question_well_written answer_helpful answer_level_of_information answer_plausible "
    "answer_relevance answer_well_written"
).split()
LEVELS = dict.fromkeys(THREE_LEVELS, 3) | {"answer_satisfaction": 5}


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question: its cells, what its answers build on, and what raters tend to say about it."""

    cells: Mapping[str, str]
    intent: str
    words: Mapping[str, str]
    tendency: Mapping[str, float]


def draw_weighted(rng: Random, entries: Mapping[str, dict], *, tilt: Mapping[str, float] | None = None) -> str:
    """Draw a key with the odds of its entry's weight; tilt multiplies some of them."""
    return rng.choices(list(entries), [entry["weight"] * (tilt or {}).get(key, 1) for key, entry in entries.items()])[0]


def draw_words(rng: Random, host: str) -> dict[str, str]:
    """Fill every slot of the phrases with the host's words."""
    pool = PHRASES["hosts"][host]
    a, b = rng.sample(rng.choice(pool["pairs"]).split(" / "), 2)
    term, meaning = rng.choice(pool["terms"]).split(": ", 1)
    cause, cause2 = rng.sample(pool["causes"], 2)
    words = dict(a=a, b=b, term=term, meaning=meaning, cause=cause, cause2=cause2, number=str(rng.randint(2, 20)))
    return words | {name: rng.choice(pool[name + "s"]) for name in ("thing", "goal", "problem")}


def say(rng: Random, part: str, words: Mapping[str, str]) -> str:
    """Draw a phrase of the part and fill it."""
    return fill(rng.choice(PARTS[part]), words)


def fill(phrase: str, words: Mapping[str, str]) -> str:
    """Put the words into the slots and start with a capital."""
    text = phrase.format_map(words)
    return text[:1].upper() + text[1:]


def make_log(rng: Random, host: str) -> str:
    """Write what askers paste when they paste too much: a log, or a diary where the host has no code."""
    if "code" not in PHRASES["hosts"][host]:
        notes = rng.sample(PARTS["tried"] + PARTS["context"], 12)
        return "\n".join(f"Day {day}: {fill(note, draw_words(rng, host))}" for day, note in enumerate(notes, start=1))
    states = ("ok", "retry", "timeout", "ok", "warning: value out of range")
    clock = sorted(f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}" for _ in range(rng.randint(10, 30)))
    return "\n".join(
        f"[{time}] unit {rng.randint(1, 9)} read {rng.random():.3f} {rng.choice(states)}" for time in clock
    )


def roughen(rng: Random, text: str) -> str:
    """Spoil the writing as people in a hurry do: no capitals, chat spelling, swapped letters, lost full stops."""
    hurried = {"you": "u", "please": "plz", "because": "cuz", "the": "teh", "and": "n", "are": "r", "with": "wiht"}
    spoilt = [hurried.get(word, word) if rng.random() < 0.6 else word for word in text.lower().split(" ")]
    return re.sub(r"[.,](?= )", lambda match: match[0] if rng.random() < 0.3 else "", " ".join(spoilt))


def make_question(rng: Random, *, host: str, intent: str, asker: tuple[str, int]) -> Question:
    """Write a question and settle what raters tend to say about it."""
    pool, plan, words = PHRASES["hosts"][host], PHRASES["intents"][intent], draw_words(rng, host)
    if intent == "spelling":
        words["a"], words["b"] = rng.choice(pool["spellings"]).split(" / ")
    size = rng.choices((0, 1, 2, 3), (25, 40, 25, 10))[0]
    is_vague, is_rough, is_chatty = (rng.random() < share for share in (0.2, 0.2, 0.15))
    is_multiple, is_curious, is_polite = (rng.random() < share for share in (0.25, 0.3, 0.4))
    is_chatty |= intent == "statement"

    title = fill(rng.choice(PARTS["vague_titles"] if is_vague else plan["titles"]), words)
    ask = fill(rng.choice(plan["ask"]), words)
    story = [*rng.sample(pool["facts"], rng.randint(1, 2)), say(rng, "context", words)]
    story += [fill(phrase, draw_words(rng, host)) for phrase in rng.sample(PARTS["tried"] + PARTS["context"], 2 * size)]
    paragraphs = [ask, " ".join(story)] if rng.random() < 0.4 else [" ".join(story), ask]
    if is_curious:
        paragraphs.insert(0, say(rng, "curiosity", words))
    if is_multiple:
        paragraphs.append(say(rng, "second", draw_words(rng, host)))
    if is_chatty:
        paragraphs = [say(rng, "chat_openings", words), *paragraphs, say(rng, "chat_closings", words)]
    if is_rough:
        title, paragraphs = roughen(rng, title), [roughen(rng, paragraph) for paragraph in paragraphs]
        paragraphs.append(say(rng, "rude", words))
    elif is_polite:
        paragraphs.append(say(rng, "polite", words))
    if "code" in pool and rng.random() < 0.7:
        code = rng.choice(pool["code"])
        paragraphs.insert(1, html.escape(code) if rng.random() < 0.5 else code)
    if size == 3:
        paragraphs.insert(1, make_log(rng, host))

    interest = PHRASES["categories"][pool["category"]]["interest"] + 0.35 * is_curious - 0.2 * is_rough
    tendency = PHRASES["question"] | plan["tendency"]
    tendency |= {
        "asker_intent_understanding": 0.97 - 0.25 * is_vague - 0.35 * is_rough,
        "body_critical": 0.15 + 0.65 * is_vague + 0.1 * size,
        "interestingness_self": interest - 0.15,
        "interestingness_others": interest + 0.05 * size,
        "well_written": 0.85 - 0.6 * is_rough + 0.12 * is_polite - 0.1 * is_vague,
        "multi_intent": 0.9 if is_multiple else tendency["multi_intent"],
        "conversational": tendency["conversational"] + 0.4 * is_chatty,
        "expect_short_answer": tendency["expect_short_answer"] - 0.12 * size - 0.2 * is_multiple,
    }
    slug = "-".join(re.findall(r"[a-z0-9]+", title.lower()))[:80]
    number = rng.randrange(90_000_000, 99_000_000)  # above what the sites have reached: no address is a real one
    cells = dict(question_title=title, question_body="\n\n".join(paragraphs) + "\n", question_user_name=asker[0])
    cells |= dict(question_user_page=f"https://{host}/users/{asker[1]}", category=pool["category"], host=host)
    cells["url"] = f"http://{host}/questions/{number}/{slug}"
    return Question(cells=cells, intent=intent, words=words, tendency=tendency)


def make_answer(rng: Random, question: Question) -> tuple[str, dict[str, float]]:
    """Write an answer and settle what raters tend to say about it."""
    host, words = question.cells["host"], question.words
    kind = draw_weighted(rng, PHRASES["kinds"])
    form = PHRASES["intents"][question.intent]["form"] if rng.random() < 0.85 else rng.choice(("reason", "steps"))
    tendency = {"type_instructions": 0.04, "type_procedure": 0.04, "type_reason_explanation": 0.04}
    tendency |= PHRASES["kinds"][kind]["tendency"]
    if kind == "off_topic":
        other = draw_words(rng, rng.choice([name for name in PHRASES["hosts"] if name != host]))
        paragraphs = [say(rng, kind, other), say(rng, "context", other)]
    elif kind in ("short", "hedged"):
        paragraphs = [say(rng, kind, words)]
        if rng.random() < 0.5:
            paragraphs.append(say(rng, "reason", words))
            tendency["type_reason_explanation"] = 0.7
    else:
        paragraphs, types = write_form(rng, form, host=host, words=words)
        n_more = rng.randint(3, 6) if kind == "rich" else rng.randint(0, 1)
        more = rng.sample(PARTS["more"] + PARTS["example"], n_more)
        paragraphs += [fill(phrase, draw_words(rng, host)) for phrase in more]
        if kind == "rich" and form != "reason" and rng.random() < 0.5:
            paragraphs.insert(1, say(rng, "reason", words))
            types["type_reason_explanation"] = 0.75
        if rng.random() < 0.3:
            paragraphs.append(say(rng, "thanks", words))
        tendency |= types
    if rng.random() < 0.15:
        paragraphs = [roughen(rng, paragraph) for paragraph in paragraphs]
        tendency["well_written"] -= 0.5
        tendency["satisfaction"] -= 0.1
    return "\n\n".join(paragraphs) + "\n", tendency


def write_form(rng: Random, form: str, *, host: str, words: Mapping[str, str]) -> tuple[list[str], dict[str, float]]:
    """Write the core of an answer that is one: steps, a procedure, or a reasoned sentence."""
    pool = PHRASES["hosts"][host]
    if form not in ("steps", "procedure"):
        return [say(rng, form, words)], {"type_reason_explanation": {"reason": 0.95, "prefer": 0.8}.get(form, 0.3)}
    steps = rng.sample(pool["steps"], rng.randint(3, len(pool["steps"])))
    if form == "procedure":
        text = f"First, {steps[0]}. Then {', then '.join(steps[1:-1])}. Finally, {steps[-1]}."
        return [say(rng, form, words), text], {"type_procedure": 0.75, "type_instructions": 0.55}
    mark = rng.choice(("{}. ", "{}) ", "- ", "* "))
    listed = [mark.format(place) + step[0].upper() + step[1:] + "." for place, step in enumerate(steps, start=1)]
    paragraphs = [say(rng, "steps_opening", words), "\n".join(listed)]
    if "code" in pool and rng.random() < 0.5:
        paragraphs.append(rng.choice(pool["code"]))
    return paragraphs, {"type_instructions": 0.95, "type_procedure": 0.25}


def rate(rng: Random, tendency: float, *, n_levels: int, n_raters: int) -> float:
    """Average what the noisy raters of one row say; one level stands for yes (1) or no (0)."""
    if n_levels == 1:
        return sum(rng.random() < tendency for _ in range(n_raters)) / n_raters
    said = [round(1 + (n_levels - 1) * tendency + rng.gauss(0, 0.13 * n_levels)) for _ in range(n_raters)]
    return sum(min(max(level, 1), n_levels) for level in said) / (n_levels * n_raters)


def draw_plan(rng: Random, table: str, n_questions: int) -> list[tuple[str, str]]:
    """Draw (host, intent) for each question of a table."""
    hosts = [host for host in PHRASES["hosts"] if host not in TEST_ONLY_HOSTS]
    rare = RARE_INTENTS[table]
    plan = [(LANGUAGE_HOSTS[place % 2], "spelling") for place in range(rare["spelling"])]
    plan += [(rng.choice(hosts), "statement") for _ in range(rare["statement"])]
    if table == "test":
        plan += [(host, draw_weighted(rng, PHRASES["intents"])) for host in TEST_ONLY_HOSTS for _ in range(3)]
    while len(plan) < n_questions:
        host = draw_weighted(rng, PHRASES["hosts"])
        tilt = PHRASES["categories"][PHRASES["hosts"][host]["category"]]["tilt"]
        plan.append((host, draw_weighted(rng, PHRASES["intents"], tilt=tilt)))
    rng.shuffle(plan)
    return plan


def make_tables(seed: int) -> dict[str, list[dict[str, object]]]:
    """Make the rows of the three tables, keyed by file name."""
    rng = Random(seed)
    stems = (
        "Ana Björn Chidi Dana Elif Farid Greta Hiro Inés Jun Kofi Łucja Mira Nils Olu Priya Quim Rosa Sven Zoë".split()
    )
    people = [
        (f"{stem}{suffix}", rng.randrange(9_000_000, 9_900_000)) for suffix in ("", "_k", " B.", "42") for stem in stems
    ]
    ids = rng.sample(range(1, 640), len(TRAIN_ANSWERS) * 2)
    titles: set[str] = set()
    tables: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for table, counts in (("train", TRAIN_ANSWERS), ("test", (1,) * N_TEST)):
        for (host, intent), n_answers in zip(draw_plan(rng, table, len(counts)), counts, strict=True):
            # The square makes a few people ask a lot, as on the real sites.
            asker = people[int(len(people) * rng.random() ** 2)]
            question = make_question(rng, host=host, intent=intent, asker=asker)
            while question.cells["question_title"] in titles:
                question = make_question(rng, host=host, intent=intent, asker=asker)
            titles.add(question.cells["question_title"])
            for _ in range(n_answers):
                tables[table].append(make_row(rng, question, qa_id=ids.pop(), answerer=rng.choice(people)))
    tables = {table: sorted(rows, key=lambda row: row["qa_id"]) for table, rows in tables.items()}
    tables["sample_submission"] = [
        {"qa_id": row["qa_id"]} | dict.fromkeys(TARGETS, round((place + 1) / 200, 3))
        for place, row in enumerate(tables["test"])
    ]
    return tables


def make_row(rng: Random, question: Question, *, qa_id: int, answerer: tuple[str, int]) -> dict[str, object]:
    """Answer the question once and have the pair rated."""
    answer, answer_tendency = make_answer(rng, question)
    page = f"https://{question.cells['host']}/users/{answerer[1]}"
    row: dict[str, object] = {
        "qa_id": qa_id,
        "answer": answer,
        "answer_user_name": answerer[0],
        "answer_user_page": page,
    }
    n_raters = 2 if rng.random() < 0.06 else 3
    tendency = {f"question_{name}": value for name, value in question.tendency.items()}
    tendency |= {f"answer_{name}": value for name, value in answer_tendency.items()}
    for target in TARGETS:
        row[target] = rate(rng, tendency[target], n_levels=LEVELS.get(target, 1), n_raters=n_raters)
    return {**row, **question.cells}


def write_tables(folder: Path, *, seed: int = 2020) -> None:
    """Write train.csv, test.csv and sample_submission.csv."""
    headers = {"train": (*TEXT_HEADER, *TARGETS), "test": TEXT_HEADER, "sample_submission": ("qa_id", *TARGETS)}
    for table, rows in make_tables(seed).items():
        path = folder / f"{table}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, headers[table], extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        logger.info("%s: %d rows, %d kB", path, len(rows), path.stat().st_size // 1000)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_tables(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
