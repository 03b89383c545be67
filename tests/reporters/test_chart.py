"""Charts in text show every kind of curve."""

from __future__ import annotations

import math

from fitdoctor.reporters.chart import ASCII, UNICODE, chart, number, sparkline
from hypothesis import given
from hypothesis import strategies as st

points = st.lists(st.tuples(st.integers(0, 10**9), st.floats()), max_size=200).map(
    lambda p: sorted(p, key=lambda x: x[0])
)


def drawn(curve, marks=(), **options) -> list[str]:
    return ["".join(text for text, _ in row) for row in chart(curve, marks, **options)]


@given(points, st.integers(17, 120), st.integers(2, 12), st.sampled_from([UNICODE, ASCII]))
def test_any_curve_fits_its_box(curve, width, height, glyphs):
    rows = drawn(curve, [(s, "mark") for s, _ in curve[:3]], width=width, height=height, glyphs=glyphs)
    assert all(len(row) <= width for row in rows)
    assert not curve or any(glyphs.corner in row for row in rows)
    if glyphs is ASCII:
        assert all(row.isascii() for row in rows)


@given(points, st.integers(1, 60), st.sampled_from([UNICODE, ASCII]))
def test_any_sparkline_has_its_length(curve, width, glyphs):
    assert len(sparkline(curve, width, glyphs)) == min(width, len(curve))


def test_a_line_from_corner_to_corner():
    rows = drawn([(0, 0.0), (100, 1.0)], width=25, height=4)
    assert rows == [
        "      1 │            ⣀⠤⠒⠉",
        "        │        ⣀⠤⠒⠉",
        "        │    ⣀⠤⠒⠉",
        "      0 │⣀⠤⠒⠉",
        "        └────────────────",
        "         0            100",
    ]


def test_values_that_are_not_finite_show_above():
    rows = drawn([(0, 1.0), (50, math.nan), (100, math.inf)], width=30, height=3)
    assert rows[0].startswith("inf/nan")
    assert rows[0].count("×") == 2


def test_nothing_but_nan():
    assert drawn([(0, math.nan), (1, math.nan)], width=30)[0].count("×") == 2


def test_a_constant_stands_in_the_middle():
    rows = drawn([(0, 3.0), (10, 3.0)], width=30, height=5)
    assert rows[2].startswith("      3 │⠉") or rows[2].startswith("      3 │⠒") or rows[2].startswith("      3 │⠤")


def test_marks_that_are_near_each_other_get_rows_of_their_own():
    rows = drawn([(0, 1.0), (1000, 2.0)], [(500, "best"), (505, "onset")], width=60)
    assert [("best 500" in r, "onset 505" in r) for r in rows[-2:]] == [(True, False), (False, True)]


@given(st.floats())
def test_numbers_are_short(value):
    assert len(number(value)) <= 7
