"""Tag names to words: `train/valAcc@1` becomes ``train``, ``val``, ``acc1``.

Knows the vocabulary of training logs, not what a combination of words means; that is `tags`.
"""

from __future__ import annotations

import re
from functools import lru_cache


def word_set(text: str) -> frozenset[str]:
    """The words of a text, which reads better than a long list of strings."""
    return frozenset(text.split())


PHRASES: dict[tuple[str, ...], str] = {
    ("learning", "rate"): "lr",
    ("learning", "rates"): "lr",
    ("weight", "decay"): "weightdecay",
    ("cross", "entropy"): "crossentropy",
    ("negative", "log", "likelihood"): "nll",
    ("neg", "log", "likelihood"): "nll",
    ("label", "smoothing"): "labelsmoothing",
    ("label", "smoothed"): "labelsmoothing",
    ("label", "smooth"): "labelsmoothing",
    ("smooth", "l1"): "smoothl1",
    ("explained", "variance"): "explained_variance",
    ("mean", "average", "precision"): "map",
    ("average", "precision"): "ap",
    ("word", "error", "rate"): "wer",
    ("char", "error", "rate"): "cer",
    ("character", "error", "rate"): "cer",
    ("mean", "absolute", "percentage", "error"): "mape",
    ("mean", "absolute", "error"): "mae",
    ("mean", "squared", "error"): "mse",
    ("mean", "io", "u"): "miou",
    ("mean", "iou"): "miou",
    ("root", "mean", "squared", "error"): "rmse",
    ("error", "rate"): "error",
    ("bits", "per", "byte"): "bpb",
    ("bits", "per", "char"): "bpc",
    ("bits", "per", "character"): "bpc",
    ("bits", "per", "dim"): "bpd",
    ("top", "1"): "top1",
    ("top", "5"): "top5",
    ("f", "1"): "f1",
    ("r", "2"): "r2",
    ("default", "policy"): "default",
    ("global", "norm"): "globalnorm",
    ("total", "norm"): "totalnorm",
}
"""Words that mean one thing together."""

SPLIT_OF = {
    **dict.fromkeys(("train", "training", "trn", "tr", "fit"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "vali", "eval", "evaluation", "evaluate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout"), "test"),
}
"""Words that name a data split."""

WEAK_SPLITS = frozenset({"eval", "evaluation", "evaluate", "fit"})
"""Words that say how a number was made rather than on which data: any other split word outranks them."""

LOSS_WORDS = frozenset({"loss", "losses", "nll", "cost", "objective", "xent", "crossentropy", "logloss"})
SAME_LOSS = word_set(
    """
    total overall sum full all combined main nll ce xent cross crossentropy lm language model
    criterion objective softmax sigmoid categorical sparse binary bce optimization task weighted
    labelsmoothing reduced
    """
)
"""Words beside ``loss`` that leave it the objective itself: ``total_loss``, ``lm loss``, ``nll_loss``."""

NOISE = word_set(
    """
    metrics metric scalars scalar charts chart stats statistics log logs logger trainer model models
    result results mean avg average averaged running window windowed median smoothed_window global
    current cur this the of a in at per by vs performance monitor monitoring summary summaries
    optimizer optim opt learner info perf progress meter meters data set default samples sample dataset batch
    batches step steps iter iters iteration iterations epoch epochs minibatch update updates end
    online history rollout raw
    """
)
"""Words that tell nothing about the quantity: namespaces, averages, cadences."""

CLOCKS = word_set(
    """
    step steps iter iters iteration iterations itr epoch epochs global batch batches idx index
    number num count counter update updates current cur timestep timesteps total trainer frame
    frames n samples seen tokens examples time wall timestamp runtime elapsed duration
    """
)

DERIVED = word_set(
    """
    best min max smooth smoothed ema ewma final delta diff difference change gap improvement improve
    patience counter target threshold thresh goal weight weights coef coeff coefficient lambda alpha
    std stdev stddev stderr var variance sem ci count num ratio slope zscore percentile quantile p50
    p90 p95 p99 histogram hist early stopping stop bad wait budget previous prev last old initial
    init approx rank baseline scaled multiplier factor schedule rate_decay decay frac fraction
    skipped ignored nan swa polyak cumulative chosen rejected logps
    """
)
"""Words that turn a quantity into something derived from it: ``best_val_loss``, ``loss_std``, ``kl_coef``."""

GRAD_WORDS = frozenset({"grad", "grads", "gradient", "gradients", "gnorm", "dw"})
WEIGHT_WORDS = frozenset({"weight", "weights", "param", "params", "parameter", "parameters", "kernel", "bias", "w"})
ACTIVATION_WORDS = word_set(
    """
    activation activations act acts output outputs feature features preactivation preactivations
    hidden
    """
)
UPDATE_WORDS = frozenset({"update", "updates", "ud"})

ACCURACY_WORDS = frozenset(
    {"acc", "accuracy", "accuracies", "accu", "top1", "acc1", "prec1", "accuracy1", "precision1"}
)
TOP5_WORDS = frozenset({"top5", "acc5", "prec5", "accuracy5", "precision5"})
SCORE_WORDS = word_set(
    """
    f1 fscore f1score fbeta f2 auc auroc auprc aucroc rocauc roc prauc pr ap map
    mean_average_precision precision recall bleu sacrebleu rouge rougel rouge1 rouge2 rougelsum
    meteor cider spice chrf ssim msssim psnr dice dsc iou miou jaccard fwiou mdice kappa qwk mcc
    matthews spearman spearmanr pearson pearsonr r2 ndcg mrr hits hit em exact match sensitivity
    specificity tpr tnr ppv npv score scores reward rewards rew return returns success win pck pcp
    oks lddt gdt tm bertscore macc aacc map50 map75 map95 ap50 ap75 aps apm apl ap95 ar ar100 pq sq
    rq mota idf1 hota nds correlation corr explained_variance fitness gmean youden lpq clipscore
    pesq stoi sisdr sdr rec prec snr elo rm
    """
)
ERROR_WORDS = word_set(
    """
    error err errors wer cer ter mae mse rmse mape smape msle rmsle medae fid kid lpips eer ece
    brier epe nme hd95 hausdorff assd bpb bpc bpd mpjpe ade fde absrel sqrel chamfer emd deviation
    maxae mre nrmse fpr fnr crps
    """
)
PERPLEXITY_WORDS = frozenset({"ppl", "perplexity", "perplexities"})

OPTIMIZERS = word_set(
    """
    adam adamw sgd rmsprop adagrad adadelta adamax nadam radam lamb lars lion lbfgs adafactor muon
    sophia sgdw fused schedulefree shampoo soap w asgd rprop ranger
    """
)

_KNOWN = frozenset(
    {*SPLIT_OF, "loss", "losses", "acc", "accuracy", "err", "error", "grad", "gradient", "norm", "lr", "learning"}
    | {"rate", "epoch", "step", "time", "data", "batch", "iter", "weight", "total", "avg", "mean", "score", "f1"}
    | {"map", "miou", "iou", "auc", "dice", "psnr", "ssim", "ppl", "nll", "top1", "top5", "acc1", "acc5", "scale"}
)
_KEEP_WHOLE = frozenset({"nanmean", "lossless", "timestep", "timesteps", "minibatch", "iteration", "iterations"})

_WHOLE = SCORE_WORDS | ERROR_WORDS | NOISE

_BOUND = re.compile(
    r"(?<=[a-z]{2})(?=[A-Z])"  # gradNorm, but not mAP
    r"|(?<=[A-Za-z])(?=[A-Z][a-z]{2,})(?<![a-z](?=[A-Z]))"  # MLMAccuracy, GLoss
    r"|(?<=\d)(?=[A-Z][a-z]{2,})"  # SmoothL1Loss
)
_RANKED = re.compile(
    r"\b(top|acc|accuracy|prec|precision|hits?|recall|r|map|ap|err|error|ndcg|mrr|rouge)[ _-]?@[ _-]?", re.I
)
_TOP = re.compile(r"(?<![a-z])(top)[ _-]?(\d+)", re.I)
_NUMBERED_LOSS = re.compile(r"(loss)(\d+)")
_WORD = re.compile(r"[a-z]+\d*[a-z]*\d*|\d+", re.I)


@lru_cache(maxsize=8192)
def words_of(text: str) -> tuple[str, ...]:
    """The lower-case words of a name.

    Example:
        >>> words_of("valAcc@1"), words_of("metrics/mAP50-95(B)"), words_of("lossTrain_G")
        (('val', 'acc1'), ('metrics', 'map50', '95', 'b'), ('loss', 'train', 'g'))
    """
    text = _BOUND.sub(" ", text)
    text = _RANKED.sub(r"\1", text)
    text = _TOP.sub(r"\1\2", text)
    found: list[str] = []
    for word in _WORD.findall(text):
        found.extend(_taken_apart(word.lower()))
    return tuple(found)


def collapsed(words: tuple[str, ...]) -> tuple[str, ...]:
    """The same words, each phrase of `PHRASES` as one.

    Example:
        >>> collapsed(("base", "learning", "rate"))
        ('base', 'lr')
    """
    out: list[str] = []
    i = 0
    while i < len(words):
        for length in (4, 3, 2):
            one = PHRASES.get(words[i : i + length])
            if one is not None and i + length <= len(words):
                out.append(one)
                i += length
                break
        else:
            out.append(words[i])
            i += 1
    return tuple(out)


@lru_cache(maxsize=4096)
def _taken_apart(word: str) -> tuple[str, ...]:
    """``trainloss`` -> train, loss; anything that is not two known words stays whole."""
    if numbered := _NUMBERED_LOSS.fullmatch(word):
        return (numbered[1], numbered[2])
    if len(word) < 5 or word in _KNOWN or word in _KEEP_WHOLE or word in _WHOLE:
        return (word,)
    for cut in range(2, len(word) - 1):
        first, second = word[:cut], word[cut:]
        if first in _KNOWN and second in _KNOWN:
            return (first, second)
    if word[1:] in ("loss", "losses") and word[0] in "gdcqv":
        return (word[0], word[1:])
    return (word,)


def segments_of(tag: str) -> list[str]:
    """The parts of a tag between slashes and bars, blanks trimmed."""
    return [part for part in (p.strip() for p in re.split(r"[/|\\]+", tag)) if part]
