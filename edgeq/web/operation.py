"""What can be asked of the interface: one `Operation` for each, by which requests are routed, checked and described."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote

import msgspec
from microdot import Request, Response
from msgspec import Meta

from ..errors import EdgeqError, StoreError
from .access import Access, Asked, Caller, Need
from .replies import JSON, Refusal, json_reply
from .server import Page, Room

LIMIT = 50
LIMIT_MAX = 500
ID_MAX = 2**63 - 1

Id = Annotated[int, Meta(ge=1, le=ID_MAX)]
Time = Annotated[int, Meta(ge=0, le=ID_MAX, description="Microseconds since 1970 UTC.")]
Text = Annotated[str, Meta(max_length=500, pattern=r"^[^\x00]*$")]  # PostgreSQL takes no null character


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operation without parameters."""


class One(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operation on the row of that id."""

    id: Id


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operation on what has that name."""

    name: Text


class Listing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A list, the newest first, page by page."""

    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX, description="How many at most.")] = LIMIT
    before: Annotated[int, Meta(ge=1, le=ID_MAX, description="Only those with a smaller id: `next` of a page.")] = (
        ID_MAX
    )


class Call(NamedTuple):
    """One request: what its path and query hold, its body, and who asks. The body is what the operation's `body` says,
    or its octets."""

    asked: Any
    body: Any
    caller: Caller
    about: Asked


class Operation(NamedTuple):
    """`method` at `path`, in which `<name>` stands for a field of `asks`; the other fields are of the query. `gives` is
    the type of what `answer` returns, which is sent as JSON; of a Response, which is sent as it is, `media` is the
    type of its content. `answer` raises Refusal, with one of the `refusals` beside those that all have. A `body` of
    bytes is in one of `body_media`, as JSON it `holds` something of that type, and may be larger than others if `room`
    says so (see Page)."""

    method: str
    path: str
    summary: str
    answer: Callable[[Call], Awaitable[Any]]
    gives: Any
    asks: type[msgspec.Struct] = Nothing
    body: type[msgspec.Struct] | type[bytes] | None = None
    need: Need = "read"
    refusals: tuple[int, ...] = ()
    media: str = JSON
    body_media: tuple[str, ...] = (JSON,)
    holds: Any = None
    room: Room | None = None


class Group(Protocol):
    """Operations that are about one thing."""

    def operations(self) -> list[Operation]:
        """All of them."""


def pages_of(operations: Iterable[Operation], access: Access) -> list[Page]:
    """The operations as the server knows them: a page for each path."""
    by_path: dict[str, dict[str, Operation]] = {}
    for each in operations:
        by_path.setdefault(each.path, {})[each.method] = each
    return [
        Page(
            path,
            tuple(methods),
            _answer(methods, access),
            next((each.room for each in methods.values() if each.room is not None), None),
        )
        for path, methods in by_path.items()
    ]


def asked_of(request: Request) -> Asked:
    """What is known of a request."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Asked(headers, request.cookies, str((request.client_addr or ("",))[0]))


def _answer(methods: dict[str, Operation], access: Access) -> Callable[..., Awaitable[Response]]:
    async def answer(request: Request, **parts: str) -> Response:
        operation = methods["GET" if request.method == "HEAD" else request.method]
        about = asked_of(request)
        caller = access.caller(about, operation.need)
        call = Call(_parameters(operation, request, parts), _body(operation, request, about), caller, about)
        try:
            given = await operation.answer(call)
        except StoreError:
            raise
        except EdgeqError as error:
            raise Refusal(409, f"{error}: {error.hint}" if error.hint else str(error)) from None
        return given if isinstance(given, Response) else json_reply(given)

    return answer


def _parameters(operation: Operation, request: Request, parts: dict[str, str]) -> msgspec.Struct:
    given: dict[str, object] = {}
    query = request.query_string or ""
    for name, value in [*parse_qsl(query, keep_blank_values=True), *((each, unquote(parts[each])) for each in parts)]:
        if name in given:
            raise Refusal(400, f"{name!a:.80} is given more than once")
        given[name] = value
    try:
        return msgspec.convert(given, operation.asks, strict=False)
    except msgspec.ValidationError as error:
        raise Refusal(400, f"the parameters of {operation.path}: {_where(error)}") from None


def _body(operation: Operation, request: Request, about: Asked) -> object:
    if operation.body is None:
        return None
    sent_as = about.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent_as not in operation.body_media:
        raise Refusal(415, f"the body is sent as Content-Type: {' or '.join(filter(None, operation.body_media))}")
    if operation.body is bytes:
        return request.body or b""
    try:
        return msgspec.json.decode(request.body or b"", type=operation.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"the body of {operation.path}: {_where(error)}") from None


def _where(error: Exception) -> str:
    """What is wrong, and with which field."""
    text, _, place = str(error).partition(" - at `$.")
    return f"{place.rstrip('`')}: {text}" if place else text
