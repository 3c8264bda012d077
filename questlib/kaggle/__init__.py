"""From this project to a Kaggle kernel: wheels, bundle, rehearsal, push."""
