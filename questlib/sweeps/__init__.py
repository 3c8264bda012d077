"""Sweeps: many runs of a notebook with other parameters, one Optuna study, as many workers and machines as there are.

Stays at home: a kernel has neither Optuna nor papermill.
"""
