"""Numbers and names as people read them."""

import math

import pytest

from finetune_trainer.report.numbers import duration, figure, memory, share, size, words


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_402, "1.40 kB"),
        (999_999, "1.00 MB"),
        (132_187_888, "132 MB"),
        (8_051_284_896, "8.05 GB"),
        (99_960_000_000, "100 GB"),
        (5_000_000_000_000_000, "5000 TB"),
    ],
)
def test_sizes_have_three_digits_and_a_decimal_unit(given: int, wanted: str) -> None:
    assert size(given) == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (0, "0.0 s"),
        (6.14, "6.1 s"),
        (9.97, "10 s"),
        (59.6, "1 min"),
        (74.2, "1 min 14 s"),
        (3599.7, "1 h"),
        (5400, "1 h 30 min"),
        (90_000, "25 h"),
    ],
)
def test_times_have_their_two_largest_units(given: float, wanted: str) -> None:
    assert duration(given) == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(0, "0 %"), (1, "100 %"), (0.9127, "91.3 %"), (0.9, "90 %"), (0.99996, "over 99.9 %"), (0.0001, "under 0.1 %")],
)
def test_shares_are_in_percent(given: float, wanted: str) -> None:
    assert share(given).replace("\u00a0", " ") == wanted


def test_the_sign_of_percent_stays_with_its_number() -> None:
    assert share(0.5) == "50\u00a0%"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (2.4021, "2.402"),
        (0, "0.000"),
        (0.0004, "0.0004"),
        (0.00002, "2e-05"),
        (-0.5, "-0.500"),
        (123456.0, "1.23e+05"),
        (math.nan, "not a number"),
        (math.inf, "not a number"),
    ],
)
def test_losses_have_three_decimals_unless_those_show_nothing(given: float, wanted: str) -> None:
    assert figure(given) == wanted


def test_memory_is_in_gib() -> None:
    assert memory(10944) == "10.7 GiB"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("NearDuplicates", "Near duplicates"),
        ("microBatchSize", "Micro batch size"),
        ("GGUFType", "GGUF type"),
        ("export", "Export"),
        ("<b>", "B"),
        ("…", "…"),
    ],
)
def test_names_become_words(given: str, wanted: str) -> None:
    assert words(given) == wanted
