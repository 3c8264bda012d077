"""Predict 30 rater opinions about a question-answer pair, scored by mean column-wise Spearman."""

__version__ = "0.1.0"
