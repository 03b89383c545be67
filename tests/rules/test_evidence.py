"""Every rule is shown by tests: two sick trainings, two look-alikes, a boundary, and how it does while a run trains.

The table says which tests show what; it is held against the tests' own source, so that none of them can go away
or shrink without this one failing. A test with a list of cases counts as often as the list is long.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from fitdoctor.catalogue import rules
from fitdoctor.rule import Rule

HERE = Path(__file__).parent
MANY = 2  # a list of cases under a name (SOUND, HEALTHY, range(40)) counts as this many

# rule: module: sick | look-alikes | boundary, each the beginnings of names of tests
TABLE = """
dead-relu: activations/test_dead_relu: units | zeros, a_net_that_learns | boundary
saturated-activations: activations/test_saturated_activations: inputs_far, weights | units, a_gate | boundary
layer-too-narrow: activations/test_layer_too_narrow: ten_classes | layers_that | boundary
poor-init-scale: activations/test_poor_init_scale: weights | sound_scales | boundary
input-collapse: activations/test_input_collapse: depth, a_loader | layers | boundary
symmetric-init: activations/test_symmetric_init: weights | random_weights | boundary
missing-nonlinearity: activations/test_missing_nonlinearity: a_linear_model, a_forgotten | layers | boundary
wrong-initial-loss: activations/test_wrong_initial_loss: outputs, a_sum | models | boundaries
logit-drift: activations/test_logit_drift: outputs_that_grow_while | outputs_that_grow_as | boundary
attention-entropy-collapse: activations/test_attention_entropy_collapse: queries, attention_that_a_high | attention_that_does | boundary
repeated-batch-order: data/test_repeated_batch_order: a_real_run | shuffled, full_batches | boundary
sorted-batches: data/test_sorted_batches: blocks_in_the, digits | neighbours, sound | the_boundary
outlying-batches: data/test_outlying_batches: batches_in | heavy_tails | boundary
overfitting: fit/test_fit001_overfitting: a_training_that_was | a_training_that_keeps | the_rise
overconfidence-drift: fit/test_fit002_overconfidence_drift: a_training_that_only | a_training_that_overfits | the_rise
underfitting: fit/test_fit003_underfitting: a_training_that_a_larger, watched_the_cause | a_training_that_fits | half_way
val-better-than-train: fit/test_fit004_val_better_than_train: a_training_whose_training | a_training_whose_val | the_difference
best-epoch: fit/test_fit005_best_epoch: a_training_whose_last_weights_are_not | a_training_whose_last_weights_are_as | the_cost
val-set-too-noisy: fit/test_fit006_val_set_too_noisy: a_training_validated_on_few | a_training_validated_on_enough | the_size_decides
memorisation-label-noise: fit/test_fit007_memorisation_label_noise: wrong_labels | no_memorisation | lead_and_fall
class-collapse: fit/test_fit008_class_collapse: a_model_that_names | a_model_that_tells | the_share
distribution-shift: fit/test_fit009_distribution_shift: validation_data | overfitting_and | the_share
exploding-gradients: gradients/test_exploding_gradients: real_runs | healthy_runs, one_spike | boundary
vanishing-gradients: gradients/test_vanishing_gradients: deep_plain | healthy_runs, a_solved | boundary
gradient-spikes: gradients/test_gradient_spikes: a_real_run | heavy_tails, healthy_runs | boundary
gradient-clipping-saturated: gradients/test_gradient_clipping_saturated: a_real_run | clipping_in, healthy_runs | boundary
lr-too-high: learning_rate/test_lrn001_lr_too_high: a_training_that_a_lower | a_training_that_is_sound | a_climb
lr-too-low: learning_rate/test_lrn002_lr_too_low: a_training_that_a_higher, watched_short | a_training_that_is_sound | a_straight
undertrained: learning_rate/test_lrn003_undertrained: a_training_that_goes | a_training_that_has | the_size
lr-noise-floor: learning_rate/test_lrn004_lr_noise_floor: a_training_that_annealing | a_training_that_was | the_jitter
edge-of-stability: learning_rate/test_lrn005_edge_of_stability: a_sound_training | a_training_away | the_edge
adam-second-moment-lag: learning_rate/test_lrn006_adam_second_moment_lag: gradients_that | a_training_whose | the_surprise
adam-epsilon-dominated: learning_rate/test_lrn007_adam_epsilon_dominated: a_training_that | a_training_whose | all_three
layerwise-update-imbalance: learning_rate/test_lrn008_layerwise_update_imbalance: layers_that_hardly | layers_that_move | a_thousandfold
batch-too-small: learning_rate/test_batch_size: a_batch_far_below | an_ordinary, the_end | a_tenth
batch-too-large: learning_rate/test_batch_size: a_batch_far_above | an_ordinary, the_end | a_tenth
finetune-lr-too-high: learning_rate/test_lrn011_finetune_lr_too_high: a_pretrained | a_gentle | the_rise
weight-decay-too-high: learning_rate/test_lrn012_weight_decay_too_high: a_training_that | a_sound_decay | the_pull
restart-discontinuity: log/test_log_quality: a_loss_that_jumps, a_rate, a_real_run | a_resume_that, a_jump_without | boundary
damaged-log: log/test_log_quality: damage_is, damage_that | sound_logs | damage_that
no-validation-logged: log/test_log_quality: no_validation, a_tag | any_held_out | too_short
too-few-points: log/test_log_quality: too_few | sound_logs, the_longest | too_few
unmapped-tags: log/test_log_quality: unmapped, a_tag | sound_logs | unmapped
duplicate-steps: log/test_log_quality: duplicate | sound_logs | duplicate
loss-divergence: loss/test_los001_loss_divergence: a_training_that_undoes | a_training_that_recovers | the_rise
loss-spikes: loss/test_los002_loss_spikes: batches_of, a_batch_that | sound_trainings, noise_alone | a_spike_has
plateau: loss/test_los003_plateau: a_training_that_got | a_training_that_still | a_slow
no-learning: loss/test_los004_no_learning: a_training_that_learns_nothing | a_training_that_learns_something | the_step
retained-graph: memory/test_graphs: losses_that | numbers_and | boundary_is_ten
growth-in-eval: memory/test_graphs: an_evaluation | outputs_without, sound_runs | boundary_is_half
host-memory-growth: memory/test_host_and_input: something | a_cache, workers_that_copy | boundary_is_a_fifth
input-bound: memory/test_host_and_input: steps_that_wait | steps_that_do_not, workers_that_start | boundary_is_three
out-of-memory: memory/test_out_of_memory: the_first, a_later, a_real | other_exceptions, a_log | boundary
nonfinite-loss: numerics/test_nonfinite_loss: one_bad, a_divergence | healthy_runs, huge | boundary
hidden-nonfinite: numerics/test_hidden_nonfinite: a_real | healthy_runs, a_loss_that | boundary
amp-gradient-underflow: numerics/test_half_precision: gradients_that | a_loss_scale, float16_with, a_dead | boundary_is_four
gradscaler-stuck: numerics/test_half_precision: every_step, most_steps | a_few_skips, one_skip | boundary_is_one
low-precision-update-loss: numerics/test_half_precision: weights_that | large_steps, stochastic | boundary_is_half
warmup-too-long: schedule/test_warmup_too_long: a_real_run | one_cycle, cycles | boundaries
lr-decay-too-early: schedule/test_lr_decay_too_early: a_real_run | nothing_was, progress | boundary
scheduler-misstepped: schedule/test_scheduler_counted: a_scheduler, a_length | stepped_once, a_plateau | boundary
warmup-missing-or-short: schedule/test_warmup_missing_or_short: a_real_run | a_catapult, a_rate | boundary
double-softmax: setup/test_loss_input: softmax, raw, sigmoid | log_softmax, what_each | boundary_is_every
loss-target-mismatch: setup/test_loss_input: outputs_in, an_absolute | shapes, one_target | boundary_is_a
eval-mode-in-training: setup/test_modes: nobody_calls_train, eval_mode | a_model_without, fine_tuning | boundary_is_three
train-mode-in-eval: setup/test_modes: nobody_calls_eval | monte_carlo, pseudo | boundary_is_half
batchnorm-tiny-batch: setup/test_batchnorm_tiny_batch: two_or | positions, frozen | boundaries
eval-without-no-grad: setup/test_modes: an_evaluation, two_evaluations | adversarial, saliency | two_evaluations
distributed-desync: setup/test_distributed_desync: copies_that_stop, copies_that_never | copies_that_agree, periodic | boundary
no-parameter-updates: setup/test_no_parameter_updates: an_optimizer, step_is | a_tiny | boundary
missing-zero-grad: setup/test_missing_zero_grad: forgotten | cleared, accumulation | boundary
frozen-or-unused-parameters: setup/test_idle_parameters: a_layer_that_runs | frozen, a_branch | boundary_is_five
optimizer-missing-params: setup/test_idle_parameters: a_new_head, a_layer_that_was | training_the_head, another | boundary_is_half
accumulation-scaling: setup/test_accumulation_scaling: cleared, a_sum_that | an_average, two_losses | boundary
"""  # noqa: E501

NO_SICK_PAIR = {"duplicate-steps": 1}
"""Rules that tell a fact of the log, which comes in one form only."""

LIVE = {
    "test_live": ("numerics", "gradients", "schedule", "log", "data", "setup"),
    "test_live_fit": ("fit", "loss", "learning_rate"),
    "activations/test_windows": ("activations", "gradients"),
    "test_books": ("setup", "memory"),
}
"""Which tests hold the rules of a family to quiet on the beginnings of sound runs, and to promptness on sick ones."""


@cache
def cases(module: str) -> dict[str, int]:
    """Test -> how many cases it has."""
    out = {}
    for node in ast.parse((HERE / f"{module}.py").read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            counts = [
                len(mark.args[1].elts) if isinstance(mark.args[1], ast.List | ast.Tuple) else MANY
                for mark in node.decorator_list
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.parametrize"
            ]
            out[node.name.removeprefix("test_")] = max(counts, default=1)
    return out


def shown() -> dict[str, tuple[int, int, int]]:
    """Rule -> sick cases, look-alikes, boundaries."""
    out = {}
    for line in TABLE.strip().splitlines():
        rule, module, rest = line.split(": ", 2)
        counts = []
        for names in rest.split(" | "):
            found = {test: n for test, n in cases(module).items() if test.startswith(tuple(names.split(", ")))}
            for name in names.split(", "):
                assert any(test.startswith(name) for test in found), f"{rule}: {module} has no test_{name}..."
            counts.append(sum(found.values()))
        out[rule] = (counts[0], counts[1], counts[2])
    return out


def test_every_rule_is_in_the_table() -> None:
    assert set(shown()) == {r.name for r in rules()}


@pytest.mark.parametrize("rule", rules(), ids=lambda r: r.name)
def test_two_sick_two_look_alikes_and_a_boundary(rule: Rule) -> None:
    sick, alike, boundary = shown()[rule.name]
    assert sick >= NO_SICK_PAIR.get(rule.name, 2)
    assert alike >= 2
    assert boundary >= 1


@pytest.mark.parametrize("rule", [r for r in rules() if r.live], ids=lambda r: r.name)
def test_a_live_rule_is_watched_while_a_run_trains(rule: Rule) -> None:
    homes = [module for module, families in LIVE.items() if rule.family in families]
    assert homes
    names = {test for module in homes for test in cases(module)}
    assert any(name.startswith("quiet_on_every") for name in names)
    assert any(name.startswith("prompt_on") for name in names)
