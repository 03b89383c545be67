"""Settings that stand in the names of runs: ``adam_lr0.01_bs32``, ``opt=sgd,lr=0.1/seed3``.

Only what all names spell alike is taken for a setting: a number behind a word that (nearly) every name holds, or a
word that stands at the same place in every name and comes back. A number that only counts runs is none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from fitdoctor.readers.tags import facts_from_params
from fitdoctor.readers.tags.words import word_set
from fitdoctor.run import Fact

NEARLY_ALL = 0.9
"""Share of the names that must hold a word with a number for it to be a setting."""

_PAIR = re.compile(r"([A-Za-z][A-Za-z_.]*)=(.*?)(?=[_\-,;&\s]+[A-Za-z][A-Za-z_.]*=|[,;&]|$)")
_FUSED = re.compile(
    r"(?<![A-Za-z0-9.])((?:[A-Za-z]+[_-])*[A-Za-z]+)([_-]?)(\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![A-Za-z0-9.])"
)
_COUNTERS = word_set("run version trial exp experiment job id attempt v checkpoint offline r n no nr idx t try")
_SHORT = word_set(
    """
    lr wd bs seed s ep epochs mom momentum dropout do drop gamma beta beta1 beta2 eps width depth layers hidden dim
    heads rank alpha temp warmup clip k fold rep repeat replicate split_seed data_seed
    """
)
OPTIMIZERS = word_set(
    """
    sgd momentum nesterov adam adamw adamax nadam radam adagrad adadelta rmsprop lion lamb lars adafactor shampoo soap
    muon sophia lbfgs gd gradientdescent asgd amsgrad prodigy schedulefree came
    """
)


def settings_in_names(names: Sequence[str]) -> list[dict[str, Fact]]:
    """The settings in the name of each run.

    Example:
        >>> settings_in_names(["adam_lr0.1_seed1", "adam_lr0.01_seed2", "sgd_lr0.1_seed1", "sgd_lr0.01_seed2"])[0]
        {'learning_rate': 0.1, 'seed': 1, 'optimizer': 'adam'}
    """
    parts = [[part for part in re.split(r"[/\\]", name) if part] for name in names]
    depth = Counter(map(len, parts)).most_common(1)[0][0] if parts else 0
    found: list[dict[str, Fact]] = [{} for _ in names]
    for i in range(depth):
        column = [p[i] if len(p) == depth else "" for p in parts]
        if len(set(column)) < 2:
            continue
        for own, more in zip(found, _in_column(column, i, depth), strict=True):
            own.update({key: value for key, value in more.items() if key not in own})
    return found


def _in_column(texts: Sequence[str], place: int, depth: int) -> list[dict[str, Fact]]:
    pairs = [dict(_pairs(text)) for text in texts]
    rest = [_PAIR.sub(" ", text) for text in texts]
    counted = Counter(key for text in rest for key in {k for k, _, _ in _fused(text)})
    present = sum(bool(text) for text in texts)
    common = {key for key, n in counted.items() if n >= NEARLY_ALL * present}
    counters = {
        key for key in common if _counts_runs(key, [v for text in rest for k, v, _ in _fused(text) if k == key])
    }
    out: list[dict[str, Fact]] = []
    words: list[list[str]] = []
    for own, text in zip(pairs, rest, strict=True):
        left = text
        for key, value, spelled in _fused(text):
            if key in common:
                left = left.replace(spelled, " ", 1)
                if key not in counters:
                    own.setdefault(canonical(key, value), value)
        out.append(own)
        words.append([w for w in re.split(r"[_\-\s,;:]+", left) if w])
    lengths = {len(w) for w, text in zip(words, texts, strict=True) if text}
    columns = list(zip(*words, strict=True)) if len(lengths) == 1 and len({len(w) for w in words}) == 1 else []
    if not columns or (place < depth - 1 and not any(out)):
        columns = [tuple(texts) if not any(out) else tuple("_".join(w) for w in words)]  # one word, such as a data set
    for i, column in enumerate(columns):
        known = {w.lower() for w in column if w}
        if len(known) < 2 or 2 * len(known) > len(column) or not any(re.search("[a-z]", w) for w in known):
            continue  # the same everywhere, or hardly any comes back, or numbers of which nobody knows what they are
        label = f"folder {place + 1}" if place < depth - 1 else "name"
        label = f"{label}, word {i + 1}" if len(columns) > 1 else label
        key = "optimizer" if known <= OPTIMIZERS else label
        for own, word in zip(out, column, strict=True):
            if word:
                own.setdefault(key, word)
    return out


def _counts_runs(key: str, values: Sequence[Fact]) -> bool:
    """Whether a word with a number only counts runs: ``trial_7``, or numbers of which each comes once, in a row."""
    if key.lower() in _COUNTERS:
        return True
    if key.lower() in _SHORT or canonical(key, values[0]) != key or len(values) < 3:
        return False
    whole = sorted(v for v in values if isinstance(v, int))
    return len(whole) == len(values) and whole == list(range(whole[0], whole[0] + len(whole)))


def _pairs(text: str) -> Iterable[tuple[str, Fact]]:
    for match in _PAIR.finditer(text):
        key, value = match[1], number_or_word(match[2].strip())
        name = canonical(key, value)
        if name == key:  # "run_lr=0.1": the words before belong to something else
            words = key.split("_")
            shorter = ("_".join(words[i:]) for i in range(1, len(words)))
            name = next((canonical(s, value) for s in shorter if canonical(s, value) != s), key)
        if value != "":
            yield name, value


def _fused(text: str) -> Iterable[tuple[str, Fact, str]]:
    """Word and number of each "lr0.01", "bs_32", "weight-decay-0.1", with how it is spelled."""
    for match in _FUSED.finditer(text):
        words, value = re.split(r"[_-]", match[1]), number_or_word(match[3])
        for i in range(len(words)):
            key = "_".join(words[i:])
            if i == len(words) - 1 or key.lower() in _SHORT or canonical(key, value) != key:
                yield key, value, match[0][sum(len(w) + 1 for w in words[:i]) :]
                break


def canonical(key: str, value: Fact) -> str:
    """The fact that a setting of this name states, or the name itself."""
    return next(iter(facts_from_params({key: value})), key)


def number_or_word(text: str) -> Fact:
    """A number where the text is one, a truth value for true and false, else the text.

    Example:
        >>> number_or_word("1e-3"), number_or_word("32"), number_or_word("True"), number_or_word("adam")
        (0.001, 32, True, 'adam')
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if "_" in text:
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
