"""Our catalogue of refusals, compared with stock Flower's catalogue."""

from __future__ import annotations

import pytest
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.error.catalog import API_ERROR_MAP

from flower_nats.model.errors import (
    CATALOGUE,
    ApiError,
    ErrorCode,
    FlowerNatsError,
    Outcome,
    Unavailable,
)

FLOWERS_CODES = [code for code in API_ERROR_MAP if isinstance(code, ApiErrorCode)]


def test_every_code_has_an_outside() -> None:
    assert set(CATALOGUE) == set(ErrorCode)


@pytest.mark.parametrize("code", FLOWERS_CODES, ids=lambda code: code.name)
def test_a_code_of_flowers_looks_from_outside_as_flowers_does(code: ApiErrorCode) -> None:
    ours, flowers = CATALOGUE[ErrorCode(code)], API_ERROR_MAP[code]

    assert ErrorCode(code).name == code.name.removeprefix("FLEET_").removeprefix("RUNTIME_")
    assert ours.outcome.name == flowers.status_code.name
    assert ours.message == flowers.public_message
    # Before flwr 1.33 a code had no HTTP status, and before 1.34 no headers.
    assert ours.http_status == getattr(flowers, "http_status_code", ours.http_status)
    assert ours.http_headers == (getattr(flowers, "http_headers", ours.http_headers) or {})


def test_every_text_is_a_sentence_or_what_stock_clients_compare() -> None:
    for spec in CATALOGUE.values():
        assert spec.message
        assert spec.message[0].isupper()


def test_a_transient_fault_is_unavailable() -> None:
    fault = Unavailable("the database is gone")

    assert fault.spec.outcome is Outcome.UNAVAILABLE
    assert fault.spec.http_status == 503
    assert "database" not in fault.spec.message


def test_a_remedy_is_said_unless_the_error_knows_better() -> None:
    assert ApiError(ErrorCode.NO_ACCOUNT_AUTH, "").public_details == "No login is needed here."
    assert ApiError(ErrorCode.NO_ACCOUNT_AUTH, "", "Come back.").public_details == "Come back."
    assert ApiError(ErrorCode.RUN_ID_NOT_FOUND, "").public_details is None


def test_the_detail_stays_with_us() -> None:
    error = ApiError(ErrorCode.RUN_ID_NOT_FOUND, "there is no run 7", "Try another.")

    assert str(error) == "there is no run 7"
    assert error.public_details == "Try another."
    assert "7" not in error.spec.message


def test_an_error_without_a_text_says_what_its_class_is_about() -> None:
    assert str(FlowerNatsError()) == "Something went wrong in flower-nats."
