"""Advice, each piece worded once. Rules choose among these; `fitdoctor.prescribe` takes out what a run speaks
against and puts the rest in the order of evidence, by the `kind` of each.

Every remedy says how to see that it worked, by a command where one shows it. Lines for PyTorch run as they stand in
a loop with `model`, `optimizer`, `criterion`, `loader`, `x`, `y` and `scheduler` (tests/test_remedies.py runs them).
What a program can apply is a `Change` in the vocabulary of `fitdoctor.knobs`.
"""

from __future__ import annotations

from fitdoctor.remedies.bugs import check_labels, check_updates, overfit_one_batch, pass_raw_logits, shuffle_batches
from fitdoctor.remedies.fit import (
    add_capacity,
    augment_data,
    calibrate_outputs,
    drop_out,
    evaluate_more,
    less_regularisation,
    more_data,
    regularise,
    shrink_model,
    start_pretrained,
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
    start_from_published_rate,
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
    "augment_data",
    "average_weights",
    "calibrate_outputs",
    "check_initialisation",
    "check_labels",
    "check_updates",
    "clip_gradients",
    "decay_learning_rate",
    "drop_out",
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
    "raise_clip_norm",
    "raise_learning_rate",
    "regularise",
    "restore_whole_state",
    "search_learning_rate",
    "shorten_gradient_path",
    "shorten_warm_up",
    "shrink_model",
    "shuffle_batches",
    "start_from_published_rate",
    "start_pretrained",
    "step_scheduler_once",
    "stop_early",
    "stretch_schedule",
    "use_best_checkpoint",
    "warm_up",
    "write_one_log_per_run",
]
