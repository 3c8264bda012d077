from pathlib import Path

import pandas as pd
import pytest
import toy
from questlib.schema import TARGETS

import numpy as np

@pytest.fixture
def toy_frame() -> pd.DataFrame:
    g = np.random.default_rng(0)
    n = 20
    f = pd.DataFrame({
        "qa_id": range(n), "question_title": ["how to step", "why is the body"] * 10, "question_body": ["the body is good"] * n,
        "answer": ["step to " * (i % 7 + 1) for i in range(n)], "url": [f"u{i // 2}" for i in range(n)],
        "category": ["A", "B"] * 10, "host": ["x", "y", "z", "w"] * 5})
    for name in TARGETS:
        f[name] = g.integers(0, 4, n) / 3
    return f

@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_encoder(tmp_path_factory.mktemp("encoder"))
