"""What each mechanism should learn and what not, declared before it is measured, with the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Cell(NamedTuple):
    """What is expected of a mechanism on a task: pass, fail or either."""

    expected: str
    reason: str


class Row(NamedTuple):
    """A mechanism with its options, and what is expected of it on each task.

    name: file of conf/attention. options: of the mechanism, where they aren't its defaults. model: changes of the
    ladder's model. budget: of updates, as a factor of the task's; a budget above one says why in `budget_reason`.
    """

    name: str
    why: str
    cells: Mapping[str, Cell]
    options: Mapping[str, Any] = {}
    model: tuple[str, ...] = ()
    budget: float = 1.0
    budget_reason: str = ""

    @property
    def label(self) -> str:
        """The name, and the options that differ."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])


def cells(**says: str) -> dict[str, Cell]:
    """Cells from `task="pass: reason"`."""
    return {task: Cell(*text.split(": ", 1)) for task, text in says.items()}


BY_CONTENT = cells(
    copy="pass: the word just written tells by its content where to read on",
    long="pass: content is found at any distance, so length doesn't matter",
    skip="pass: a word to be left out is passed over",
    reverse="pass: any word can come next, also the one before",
    sort="pass: any word can come next, also one far away",
    lookup="pass: the key just written is found by its content",
)
STATIC = cells(
    copy="fail: one sum for all steps can't say which word comes next",
    long="fail: the more words, the less one sum says of their order",
    skip="fail: one sum for all steps can't say which word comes next",
    reverse="fail: one sum for all steps can't say which word comes next",
    sort="either: a sum is a bag of words, which is all that sorting needs, but 24 numbers for 50 words are few",
    lookup="fail: a sum of pairs doesn't say which key has which value, unless there are few",
)
ONWARD = cells(
    copy="pass: from word to word",
    long="pass: from word to word, at any length",
    skip="pass: the content says where to stop next, any number of words further",
    reverse="fail: after the last word the one before is out of reach",
    sort="fail: what comes next may stand behind",
    lookup="fail: what comes next may stand behind",
)
BY_ONE = {
    **ONWARD,
    **cells(
        copy="pass: one place a step",
        long="pass: one place a step, at any length",
        skip="fail: a step moves by one place at most, so each word left out makes it later",
    ),
}
AHEAD = "either: it can't see what is left out, but a state some places ahead still remembers the words before it"
BLIND = {
    **ONWARD,
    **cells(
        copy="pass: one place a step, which the query alone can say",
        long="pass: moves from where it was, so length doesn't matter",
        skip=AHEAD,
    ),
}
PLACED = cells(
    copy="either: a step's number is a place, but the decoder must learn to count its steps without a mistake",
    long="either: it must count to 20 without a mistake",
    skip=AHEAD,
    reverse="either: it must count back from the source's length, and know that exactly",
    sort="fail: which place holds the next word, only content says",
    lookup="fail: which place holds the key, only content says",
)
READS_ON = "pass: read to the end it is a softmax over all words"
LOOKBACK = {**BY_CONTENT, **cells(reverse=READS_ON, sort=READS_ON, lookup=READS_ON)}
UNUSED = {
    **BY_CONTENT,
    **cells(
        reverse="pass: only using a word again is forbidden, and none is used twice",
        sort="pass: only using a word again is forbidden, and none is used twice",
        lookup="pass: only using a word again is forbidden, and none is used twice",
    ),
}

SLOWER: dict[str, Any] = {
    "budget": 2,
    "budget_reason": "noise on its energies, which makes its choices sharp, also makes it slower to learn",
}

HALVED: dict[str, Any] = {
    "budget": 2,
    "budget_reason": "its keys and values are half as wide, 12 numbers, which is slower to learn",
}
PRODUCT: dict[str, Any] = {
    "budget": 2,
    "budget_reason": "a product of query and key is slower than a sum to learn which word stands before another",
}

ROWS = (
    Row(
        "none",
        "All it knows of the source is the encoder's last state, which is too narrow for it.",
        cells(
            copy="fail: the last state, 24 numbers, can't hold 10 words and their order",
            long="fail: still less 16 words",
            skip="fail: still less the 10 that are left of 16",
            reverse="fail: only the last words are still fresh in it",
            sort="fail: it could hold a bag of few words, not one of 16 out of 50",
            lookup="fail: it can't hold which key has which value",
        ),
    ),
    *(
        Row(name, "Soft attention over the whole source, by content.", BY_CONTENT)
        for name in ("additive", "additive_normed", "concat")
    ),
    *(
        Row(name, "Soft attention over the whole source, by content.", BY_CONTENT, **PRODUCT)
        for name in ("general", "multihead")
    ),
    *(
        Row(
            name,
            "Soft attention over the whole source, by content.",
            BY_CONTENT,
            model=("encoder.width=32", "decoder.width=32"),  # plain, it needs a query as wide as the encoder's states
            **PRODUCT,
        )
        for name in ("dot", "scaled_dot")
    ),
    Row("key_value", "As additive; half of a state is compared, half is read.", BY_CONTENT, **HALVED),
    Row("key_value_predict", "As key_value; half of the decoder's state asks, half predicts.", BY_CONTENT, **HALVED),
    Row("location", "A place for each step, from the decoder's state alone.", PLACED),
    Row("local_m", "A window of three words at the place of the step's number.", BY_ONE, {"window": 1}),
    Row("local_p", "A window of five words at a place that the decoder's state predicts.", PLACED, {"window": 2}),
    Row(
        "hard",
        "One word a step, by content, drawn in training.",
        {
            **BY_CONTENT,
            **cells(
                reverse="either: any word can come next, but it learns from draws, and few of them are right at first",
                sort="either: any word can come next, but it learns from draws, and few of them are right at first",
                lookup="either: content finds the key, but it learns from draws, and few of them are right at first",
            ),
        },
        budget=2,
        budget_reason="a choice has no gradient; it learns from draws, which is slower",
    ),
    Row("static", "One sum of the source for all steps.", STATIC),
    Row("static_feature", "One sum of the source for all steps, with a weight for each feature.", STATIC),
    Row("reader", "One answer of the source to its own summary, for all steps.", STATIC),
    Row("forced_forward", "A pointer that only moves forward and never stays.", ONWARD),
    Row("forced_forward", "A used word loses weight; any order.", UNUSED, {"mode": "soft"}),
    Row("forced_forward", "A used word is out of reach; any order.", UNUSED, {"mode": "threshold"}),
    Row(
        "monotonic",
        "A pointer that reads on until it stops, and never goes back.",
        ONWARD,
        **SLOWER,
    ),
    Row(
        "mocha",
        "As monotonic, with a softmax over the last two words up to there.",
        ONWARD,
        {"chunk": 2},
        **SLOWER,
    ),
    Row(
        "milk",
        "A pointer that never goes back, with a softmax over all up to there.",
        LOOKBACK,
        **SLOWER,
    ),
    Row("mma", "As milk, with four heads.", LOOKBACK, **SLOWER),
    Row("mma", "As monotonic, with four heads.", ONWARD, {"kind": "hard"}, **SLOWER),
    Row("forward", "Its mass stays or moves on by one place.", BY_ONE),
    Row(
        "forward",
        "Its mass moves on by six places at most.",
        {**ONWARD, **cells(skip="pass: more than five words are hardly ever left out in a row")},
        {"max_jump": 6},
    ),
    Row("stepwise", "A pointer that stays or moves on by one place.", BY_ONE),
    Row("gmm", "Gaussians that the query moves on along the source.", BLIND),
    Row("dca", "Filters over the last alignment, fixed ones and ones made by the query.", BLIND),
    Row("location_aware", "As additive, and it sees where it was.", BY_CONTENT),
    Row("coverage", "As additive, and it sees how much each word was attended.", BY_CONTENT),
    Row("temporal", "As additive; what was attended before counts less.", UNUSED),
)

# The first row of a mechanism goes by its name, further ones by their labels.
KEYED: dict[str, Row] = {}
for _row in ROWS:
    KEYED[_row.label if _row.name in KEYED else _row.name] = _row
