"""Advice, each piece worded once. Rules choose among these and order them best first.

Order of evidence: bug fixes, data, normalisation and initialisation, learning rate and schedule,
clipping, regularisation, capacity (the tuning playbook of Godbole et al. 2023 puts a lower learning
rate last among the cures of instability; Karpathy's recipe of 2019 puts data first among those of
overfitting).
"""

from __future__ import annotations

from fitdoctor.remedies.bugs import check_labels, check_updates, overfit_one_batch, pass_raw_logits, shuffle_batches
from fitdoctor.remedies.fit import (
    add_capacity,
    calibrate_outputs,
    evaluate_more,
    less_regularisation,
    more_data,
    pretrained_or_smaller,
    regularise,
    stop_early,
    use_best_checkpoint,
)
from fitdoctor.remedies.learning_rate import (
    average_weights,
    decay_learning_rate,
    lower_learning_rate,
    raise_learning_rate,
    search_learning_rate,
    shorten_warm_up,
    step_scheduler_once,
    stretch_schedule,
    warm_up,
)
from fitdoctor.remedies.logs import (
    log_more_often,
    log_nonfinite_values,
    log_validation,
    map_tags,
    restore_whole_state,
    write_one_log_per_run,
)
from fitdoctor.remedies.stability import (
    check_initialisation,
    clip_gradients,
    find_first_nonfinite,
    inspect_batches,
    raise_clip_norm,
    shorten_gradient_path,
)

__all__ = [
    "add_capacity",
    "average_weights",
    "calibrate_outputs",
    "check_initialisation",
    "check_labels",
    "check_updates",
    "clip_gradients",
    "decay_learning_rate",
    "evaluate_more",
    "find_first_nonfinite",
    "inspect_batches",
    "less_regularisation",
    "log_more_often",
    "log_nonfinite_values",
    "log_validation",
    "lower_learning_rate",
    "map_tags",
    "more_data",
    "overfit_one_batch",
    "pass_raw_logits",
    "pretrained_or_smaller",
    "raise_clip_norm",
    "raise_learning_rate",
    "regularise",
    "restore_whole_state",
    "search_learning_rate",
    "shorten_gradient_path",
    "shorten_warm_up",
    "shuffle_batches",
    "step_scheduler_once",
    "stop_early",
    "stretch_schedule",
    "use_best_checkpoint",
    "warm_up",
    "write_one_log_per_run",
]
