"""The columns of the Google QUEST Q&A Labeling tables."""

QUESTION_TARGETS: tuple[str, ...] = (
    "question_asker_intent_understanding",
    "question_body_critical",
    "question_conversational",
    "question_expect_short_answer",
    "question_fact_seeking",
    "question_has_commonly_accepted_answer",
    "question_interestingness_others",
    "question_interestingness_self",
    "question_multi_intent",
    "question_not_really_a_question",
    "question_opinion_seeking",
    "question_type_choice",
    "question_type_compare",
    "question_type_consequence",
    "question_type_definition",
    "question_type_entity",
    "question_type_instructions",
    "question_type_procedure",
    "question_type_reason_explanation",
    "question_type_spelling",
    "question_well_written",
)
ANSWER_TARGETS: tuple[str, ...] = (
    "answer_helpful",
    "answer_level_of_information",
    "answer_plausible",
    "answer_relevance",
    "answer_satisfaction",
    "answer_type_instructions",
    "answer_type_procedure",
    "answer_type_reason_explanation",
    "answer_well_written",
)
TARGETS: tuple[str, ...] = QUESTION_TARGETS + ANSWER_TARGETS

# NOTE[METRIC]: 11 of 6,079 rows are positive: this column moves the mean by luck, so scores are shown without it too.
RARE_TARGET = "question_type_spelling"

ID = "qa_id"
# The url names the question: rows that share it are answers to one question.
QUESTION = "url"
TEXT_COLUMNS: tuple[str, ...] = ("question_title", "question_body", "answer")
METADATA_COLUMNS: tuple[str, ...] = ("category", "host")
# Not features: raters never saw who asked, and a hidden test need not repeat any of these.
UNUSED_COLUMNS: tuple[str, ...] = (
    "question_user_name",
    "question_user_page",
    "answer_user_name",
    "answer_user_page",
)
INPUT_COLUMNS: tuple[str, ...] = (ID, *TEXT_COLUMNS, *METADATA_COLUMNS)
