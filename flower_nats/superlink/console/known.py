"""The console's questions are answered only for callers with a known account."""

from collections.abc import Mapping
from typing import Any

from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.store.audit import note_account
from flower_nats.superlink.accounts.identity import Identity
from flower_nats.superlink.codecs import InternalHandler


def for_known(
    identity: Identity, handlers: Mapping[str, InternalHandler]
) -> dict[str, InternalHandler]:
    """Wrap handlers: they get callers with a known account; others get an `ApiError`."""

    def known(handler: InternalHandler) -> InternalHandler:
        async def serve(question: Mapping[str, Any], caller: Caller) -> Mapping[str, Any]:
            caller = await identity.identify(caller)
            note_account(caller.account_id, caller.account_name)
            return await handler(question, caller)

        return serve

    return {name: known(handler) for name, handler in handlers.items()}


def for_operators(
    identity: Identity, handlers: Mapping[str, InternalHandler]
) -> dict[str, InternalHandler]:
    """Wrap handlers: they get only operators; other callers get an `ApiError`."""

    def checked(handler: InternalHandler) -> InternalHandler:
        async def serve(question: Mapping[str, Any], caller: Caller) -> Mapping[str, Any]:
            check_operator(caller)
            return await handler(question, caller)

        return serve

    return for_known(identity, {name: checked(handler) for name, handler in handlers.items()})


def check_operator(caller: Caller) -> None:
    """Raise `ApiError` (FORBIDDEN_ACTION) unless the caller is an operator of the runtime."""
    if not caller.is_operator:
        raise ApiError(ErrorCode.FORBIDDEN_ACTION, f"{caller.account_name} is no operator")
