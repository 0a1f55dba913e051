"""A search over config keys with Optuna: every trial is a training run in a process of its own.

`spaces` reads what to search, `training` runs one trial, `study` is what Optuna keeps about all of
them, `workers` runs them side by side, and `results` writes the best config and the report. Optuna
is optional: only `study`, `sampler`, `workers` and `results` import it.
"""
