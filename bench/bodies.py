"""Bodies of the size that a kernel trains, on a GPU: rows a second, and how many fold-epochs that makes in two hours.

The weights are random, which takes as long as trained ones. What two T4 would do is derived, not measured: by the ratio
of the rates that the makers publish for dense 16-bit matrix products.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sides import FULL, N_TOKENS, SeedModel, Setting, choose_rows
from table import Row, alternate, measure_products, name_device, rates
from transformers import AutoModel, BertConfig, DebertaV2Config, PretrainedConfig

from questlib.model import QuestModel

BODIES: dict[str, PretrainedConfig] = {
    "BERT-base": BertConfig(),
    "DeBERTa-v3-base": DebertaV2Config(
        vocab_size=128_100, relative_attention=True, position_buckets=256, norm_rel_ebd="layer_norm",
        share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False, type_vocab_size=0,
        max_relative_positions=-1, layer_norm_eps=1e-7,
    ),
}  # fmt: skip
# Dense TFLOP/s in 16 bits, as published.
PUBLISHED = {"T4": 65.0, "L4": 121.0, "V100": 125.0, "A100": 312.0, "H100": 989.0, "H200": 989.0}
HOURS, TRAINED_ROWS = 2, 4_863  # of the competition's 6,079 rows, four folds of five


def count_flops(model: QuestModel, lengths: np.ndarray) -> float:
    """Count what one forward pass computes: the layers' matrices over every token, attention over every pair of tokens.

    The last layer reads every token, for the first alone: of its matrices, those of query, key and value meet them all.
    """
    layers = model.body.encoder.layer
    *others, last = (sum(each.numel() for each in layer.parameters() if each.ndim == 2) for layer in layers)
    width = model.body.config.hidden_size
    reading = 3 * width**2
    matrices = (sum(others) + reading) * lengths + last - reading
    pairs = len(others) * lengths**2 + lengths
    return float((2 * matrices + 4 * width * pairs).sum())


def share_of_products(what: str, setting: Setting, model: QuestModel, lengths: np.ndarray, seconds: float) -> Row:
    """Compare what training computes a second, backward twice as much as forward, with matrix products alone."""
    reached, machine = 3 * count_flops(model, lengths) / seconds, measure_products(setting.precision, setting.device)
    details = {"model GFLOP/s": reached / 1e9, "products GFLOP/s": machine / 1e9}
    target = 55 if setting.is_cpu else 50
    return Row(f"{what}: FLOP/s to products", 100 * reached / machine, target, "%", details)


def measure_bodies(setting: Setting, folder: Path, *, n_rows: int = 960, rounds: int = 3) -> Iterator[Row]:
    """Train and predict real rows with both sides, a body after the other."""
    for name, config in BODIES.items():
        encoder = folder / name
        AutoModel.from_config(config).save_pretrained(encoder)
        setting.tokenizer.save_pretrained(encoder)
        body = Setting(setting.data, folder, n_rows=n_rows, encoder=encoder)
        yield from _measure_body(name, body, folder, rounds=rounds)


def _measure_body(name: str, setting: Setting, folder: Path, *, rounds: int) -> Iterator[Row]:
    ours, seed, rows = setting.build().to(setting.device), SeedModel(setting.encoder).to(setting.device), setting.rows
    training = {
        "baseline": lambda: setting.train_seed(seed, rows, epochs=1),
        "ours": lambda: setting.train_ours(ours, rows, FULL, folder=folder),
    }
    alternate(training, rounds=1)  # warm-up
    seconds = alternate(training, rounds=rounds)
    yield Row(f"training, {name}", seconds["baseline"] / seconds["ours"], None, "x", rates(len(rows), seconds))
    epochs = HOURS * 3600 * len(rows) / seconds["ours"] / TRAINED_ROWS
    published = next((rate for chip, rate in PUBLISHED.items() if chip in name_device(setting.device)), None)
    derived = {} if published is None else {"2 x T4, derived": epochs * 2 * PUBLISHED["T4"] / published}
    yield Row(f"fold-epochs in {HOURS} h, {name}", epochs, None, "", derived)
    if name == "BERT-base":
        full = choose_rows(rows, np.flatnonzero(rows.lengths == N_TOKENS))
        once = alternate({"512 tokens": lambda: setting.train_ours(ours, full, FULL, folder=folder)}, rounds=rounds)
        yield share_of_products(f"training, {name}, {N_TOKENS} tokens", setting, ours, full.lengths, once["512 tokens"])
    seconds = alternate(
        {"baseline": lambda: setting.predict_seed(seed, rows), "ours": lambda: setting.predict_ours(ours, rows)},
        rounds=rounds,
    )
    yield Row(f"prediction, {name}", seconds["baseline"] / seconds["ours"], None, "x", rates(len(rows), seconds))
