"""Tags about what the training is for: losses and metrics."""

from __future__ import annotations

import re
from dataclasses import replace

from fitdoctor.readers.tags import words as vocabulary
from fitdoctor.readers.tags.name import Mapped, Name, Reading
from fitdoctor.readers.tags.words import collapsed, word_set, words_of
from fitdoctor.signals import ACCURACY, ERROR, LOSS, LOSS_PART, PERPLEXITY, SCORE, TOP5_ACCURACY

# --- what the training is for ---------------------------------------------------------------------------

_PERCENT = frozenset({"percent", "percentage", "pct", "perc"})
_EVALUATED = word_set(
    """
    map ap ap50 ap75 aps apm apl map50 map75 map95 miou iou bleu sacrebleu rouge rouge1 rouge2
    rougel rougelsum meteor cider fid kid wer cer lpips hota mota pq dice mdice fwiou coco bbox segm
    keypoints recall precision ar ar100 ndcg
    """
)
"""Metrics that nobody computes on training batches: without a split in the name they are validation."""
_NOT_A_METRIC = word_set(
    """
    entropy kl clipfrac clip fraction len length logits logps margins lengths horizon eps epsilon
    values
    """
)


_NEVER_A_LOSS = (
    vocabulary.ACCURACY_WORDS
    | vocabulary.TOP5_WORDS
    | word_set(
        "explained_variance score scores reward rewards return returns f1 auc auroc map ap miou psnr bleu wer cer ppl"
        " perplexity recall"
    )
)


def loss(name: Name, statistic: str) -> Reading | None:
    if not name.has(*vocabulary.LOSS_WORDS, "ce", "bce", "elbo"):
        return None
    last = collapsed(words_of(name.segments[-1]))
    if vocabulary.LOSS_WORDS.isdisjoint(last) and not (_NOT_A_METRIC | {"approx"}).isdisjoint(last):
        return "its name holds no quantity that fitdoctor knows"  # a namespace: losses/approx_kl
    if vocabulary.LOSS_WORDS.isdisjoint(last) and not _NEVER_A_LOSS.isdisjoint(last):
        return None  # objective/rlhf_reward
    if not vocabulary.PERPLEXITY_WORDS.isdisjoint(last) and last[-1] not in vocabulary.LOSS_WORDS:
        return None  # lm loss validation ppl
    # The loss of a coefficient (SAC's ent_coef_loss) is a loss; the coefficient of a loss is not.
    own = {"baseline", "alpha", "lambda", *(("coef",) if name.words[-1] in vocabulary.LOSS_WORDS else ())}
    derived = name.present & (vocabulary.DERIVED - own)
    if derived:
        return f"derived from a loss ({', '.join(sorted(derived))}), not the loss itself"
    rest = name.rest(vocabulary.LOSS_WORDS)
    parts = [w for w in rest if w not in vocabulary.SAME_LOSS]
    if not parts:
        return Mapped(name.signal(LOSS), detours=len(rest) + name.has("running", "avg", "smoothed"))
    return Mapped(name.signal(LOSS_PART, "_".join(parts)))


def metric(name: Name, statistic: str) -> Reading | None:
    kinds = (
        vocabulary.PERPLEXITY_WORDS,
        vocabulary.ERROR_WORDS | {"err1", "err5"},
        vocabulary.TOP5_WORDS,
        vocabulary.ACCURACY_WORDS,
        vocabulary.SCORE_WORDS,
    )
    if not any(_is(w, kinds) for w in name.words):
        return None
    derived = name.present & (vocabulary.DERIVED - {"rank", "weights", "weight", "count"})
    if name.has("reward", "return", "rew"):
        derived -= {"cumulative"}
    if derived:
        return f"derived from a metric ({', '.join(sorted(derived))}), not the metric itself"
    scale = 0.01 if not _PERCENT.isdisjoint(name.present) else 1.0
    named = name if name.split else replace(name, split="val" if _evaluated(name) else "")
    words = named.rest(_PERCENT, frozenset({"coco"}))
    label = "_".join(words)
    if name.has(*kinds[0]):
        return Mapped(
            named.signal(
                PERPLEXITY,
                "_".join(w for w in words if w not in kinds[0] | vocabulary.SAME_LOSS | vocabulary.LOSS_WORDS),
            )
        )
    if name.has(*kinds[1]):
        return Mapped(named.signal(ERROR, label))
    if name.has(*kinds[2]) or ("topk" in words and name.has(*kinds[3])) or ("k" in words and "top" in words):
        layer = "_".join(w for w in words if w not in kinds[2] | kinds[3] | _PLAIN_ACCURACY)
        return Mapped(named.signal(TOP5_ACCURACY, layer), scale=scale)
    if name.has(*kinds[3]) and not name.has("balanced", "macc", "aacc", "iou"):
        layer = "_".join(w for w in words if w not in kinds[3] | _PLAIN_ACCURACY)
        return Mapped(named.signal(ACCURACY, layer), scale=scale, detours=len(words) - 1)
    if label in ("score", "scores") and not name.split:
        return "a score of what, and whether more is better, its name does not tell"
    return Mapped(named.signal(SCORE, label))


_PLAIN_ACCURACY = word_set(
    """
    categorical sparse binary multiclass multilabel overall total top k topk micro masked cls
    cumulative token tokens reward rewards
    """
)


def _is(word: str, kinds: tuple[frozenset[str], ...]) -> bool:
    return any(word in kind for kind in kinds) or bool(_RANKED_SCORE.fullmatch(word))


_RANKED_SCORE = re.compile(r"(?:acc|accuracy|top|prec|precision|recall|hits?|r|ndcg|mrr|map|ap|f)\d+")


def _evaluated(name: Name) -> bool:
    """Whether a metric without a split is one of an evaluation."""
    return (
        not _EVALUATED.isdisjoint(name.present)
        or any(_MEAN_PRECISION.fullmatch(w) for w in name.words)
        or (len(name.segments) > 1 and name.segments[0] == "metrics")
    )


_MEAN_PRECISION = re.compile(r"m?ap\d+")
