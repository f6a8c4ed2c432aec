"""The catalogue of refusals against the one that stock clients were written for."""

from __future__ import annotations

import pytest
from flwr.supercore.error.catalog import API_ERROR_MAP

from flower_nats.model.errors import (
    CATALOGUE,
    ApiError,
    ErrorCode,
    FlowerNatsError,
    Status,
    Unavailable,
)

FLOWERS_OWN = sorted(code for code in ErrorCode if code < 10_000)


def test_every_code_has_an_outside() -> None:
    assert set(CATALOGUE) == set(ErrorCode)


@pytest.mark.parametrize("code", FLOWERS_OWN, ids=lambda code: code.name)
def test_a_code_of_flowers_own_has_flowers_status(code: ErrorCode) -> None:
    assert CATALOGUE[code].status.name == API_ERROR_MAP[code].status_code.name
    assert CATALOGUE[code].status.value == API_ERROR_MAP[code].http_status_code


def test_every_text_is_a_sentence_or_what_stock_clients_compare() -> None:
    for spec in CATALOGUE.values():
        assert spec.message
        assert spec.message[0].isupper()


def test_a_transient_fault_is_unavailable() -> None:
    fault = Unavailable("the database is gone")

    assert fault.spec.status is Status.UNAVAILABLE
    assert "database" not in fault.spec.message


def test_the_detail_stays_with_us() -> None:
    error = ApiError(ErrorCode.RUN_ID_NOT_FOUND, "there is no run 7", "Try another.")

    assert str(error) == "there is no run 7"
    assert error.public_details == "Try another."
    assert "7" not in error.spec.message


def test_an_error_without_a_text_says_what_its_class_is_about() -> None:
    assert str(FlowerNatsError()) == "Something went wrong in flower-nats."
