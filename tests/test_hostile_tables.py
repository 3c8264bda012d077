"""Any table is read as it was written, or refused in one line: the first of those that `make stress` goes through."""

import hostile_folders
import pytest
from hostile import FAULTS, build
from hostile_run import try_table


@pytest.fixture(scope="module")
def run_folder(toy_recipe, tmp_path_factory):
    from conftest import train_tables, write_tables

    folder = tmp_path_factory.mktemp("hostile")
    lexical = toy_recipe.members[1]
    recipe = type(toy_recipe)(members=(lexical,), folds=3)
    return train_tables(write_tables(folder / "toy"), folder, recipe).run_folder


@pytest.mark.parametrize("seed", range(40))
def test_a_table_is_predicted_row_by_row_as_it_was_written_or_refused(seed, run_folder, tmp_path):
    assert try_table(build(seed), run_folder, tmp_path) is None


def test_the_generator_makes_every_fault_and_whole_tables_too():
    tables = [build(seed) for seed in range(400)]
    assert 0.3 < sum(table.words is None for table in tables) / len(tables) < 0.7
    assert len({table.words for table in tables}) > len(FAULTS)


@pytest.mark.parametrize("seed", range(8))
def test_a_folder_is_trained_to_a_valid_submission_or_refused(seed, tmp_path):
    assert hostile_folders.try_folder(hostile_folders.build(seed), tmp_path / "folder") is None
