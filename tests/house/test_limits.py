"""What the threat model says of limits is what the code has."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import gateway
from gateway import batching, pages, schema, turns
from gateway.access import consents, grants, server
from gateway.access.audit import DETAILS_MAX_BYTES, NOTERS_AT_ONCE, NOTERS_OF_ONE
from gateway.coalition import connections
from gateway.database.tx import COMMAND_SECONDS
from gateway.events import feed
from gateway.http import (
    admission,
    budget,
    cost,
    deeds,
    endpoint,
    engine,
    login,
    oauth,
    patience,
    sessions,
    shape,
    shares,
    socket,
    wire,
)
from gateway.ledger.post import SINGLES_AT_ONCE, SINGLES_OF_ONE
from gateway.session_settings import IDLE_SECONDS


def at_once(sizes: tuple[tuple[int, int], ...]) -> str:
    *smaller, (_, largest) = sizes
    return ", ".join(f"{most} of less than {below:,}{' points' * (n == 0)}" for n, (below, most) in enumerate(smaller)) + f", {largest} larger"


SECURITY = (Path(__file__).parent.parent.parent / "docs" / "security.md").read_text()
KIB, MIB = 1024, 1024 * 1024
SAID = {
    "body of a request": [
        f"{wire.BODY_MAX_BYTES // MIB} MiB", f"{wire.MEMBERS_BODY_MAX_BYTES // KIB} KiB", f"{wire.PARTS_MAX:,} lists",
        f"form {oauth.FORM_MAX_BYTES // KIB} KiB", f"more than {wire.SMALL_BODY_BYTES // KIB} KiB",
    ],
    "memory of what was asked": [
        f"{shares.REQUEST_MAX_WEIGHT // MIB} MiB a request", f"{shares.HELD_MAX_WEIGHT // MIB} MiB a party",
        f"{shares.MEMBERS_HELD_MAX_WEIGHT // MIB} MiB a member",
    ],
    "answer of a query": [
        f"{endpoint.ANSWER_MAX_BYTES // MIB} MiB", f"(an event, too) {endpoint.STREAMED_MAX_BYTES // MIB} MiB",
        f"of one caller {shares.UNREAD_MAX_BYTES // MIB} MiB, of a member {shares.MEMBERS_UNREAD_MAX_BYTES // MIB} MiB",
        f"{wire.COUNTED_BYTES // KIB} KiB", f"{patience.UNSENT_MAX_BYTES // KIB} KiB a connection",
    ],
    "length of a document": [f"{engine.DOCUMENT_MAX_CHARS:,} characters", f"{engine.TOKENS_MAX:,} tokens"],
    "depth": [f"{shape.DEPTH_MAX} levels"],
    "selections, with fragments": [f"{shape.SELECTIONS_MAX:,}; {shape.OPERATIONS_MAX}"],
    "the same field in the same place": [f"{shape.REPEATS_MAX} times; {shape.FRAGMENTS_MAX},"],
    "other names for fields": [f"{shape.ALIASES_MAX} each", f"{shape.NAME_MAX} characters"],
    "cost of an operation": [
        f"{cost.COST_MAX:,} (of a member's {budget.PLANS['member'].maximum:,}, its whole budget): one a field",
        f"{cost.LIST_SIZE} where nothing says it", *(f"`{name}`" for name in ("details", "proof", "nativeBalance", "__schema", "__type")),
    ],
    "a page of a connection": [f"{pages.PAGE_MAX:,} items"],
    "items of a batch": [f"{batching.BATCH_MAX:,}"],
    "logins checked at once": [f"{login.LOGINS_AT_ONCE}; {login.LOGINS_WAITING_OF_ONE} and {login.LOGINS_WAITING}", f"{budget.SITE_BITS} bits"],
    "items that wait to be posted": [
        f"{batching.QUEUE_MAX:,} of each kind, of one party {batching.QUEUE_MAX_OF_ONE:,}; {turns.CLAIMANTS_MAX:,}, of one party {turns.CLAIMANTS_MAX_OF_ONE:,}; {schema.REPRESENTATIONS_MAX:,}",
    ],
    "budget of cost": [
        *(f"{plan.maximum:,} and {plan.restore_rate:,}" for plan in budget.PLANS.values()),
    ],
    "time of a query": [f"{patience.QUERY_SECONDS} seconds", f"a statement {COMMAND_SECONDS}", f"nothing is said {IDLE_SECONDS}"],
    "at once, in one process": [
        f"{connections.ASKS_OF_ONE} balances in partners' own systems and {connections.CREDITS_OF_ONE} credits at each",
        f"{NOTERS_OF_ONE} that write the audit log ({NOTERS_AT_ONCE} of all)",
        f"{SINGLES_OF_ONE} transfers, reversals and releases ({SINGLES_AT_ONCE} of all)",
        f"{shares.ADMITTED_AT_ONCE} requests that are read and checked, of its queries " + at_once(shares.QUERIES_AT_ONCE) + "; of its mutations " + at_once(shares.MUTATIONS_AT_ONCE),
    ],
    "consents of a member": [f"{consents.STANDING_MAX}; {consents.WITHDRAWN_MAX}"],
    "a WebSocket's message": [
        f"{socket.MESSAGE_MAX_BYTES // KIB} KiB", f"{socket.MESSAGE_PARTS_MAX:,} lists", f"{socket.STRANGERS_MESSAGE_MAX_BYTES // KIB} KiB and "
        f"{socket.STRANGERS_PARTS_MAX} lists", f"{socket.OPERATIONS_MAX} operations at once",
    ],
    "requests that wait behind one": [f"{patience.PIPELINED_MAX};"],
    "a WebSocket without": [f"{socket.INIT_SECONDS} seconds, {socket.IDLE_SECONDS} seconds"],
    "WebSockets of one address": [f"{socket.SOCKETS_OF_ONE}, {socket.SOCKETS_MAX:,}"],
    "subscriptions of a member": [f"{feed.FOLLOWERS_MAX}, {feed.FOLLOWERS_MAX}, {feed.UNREAD_MAX}"],
    "names in a query string": [
        f"{wire.QUERY_PAIRS_MAX}; {oauth.PARAMETERS_MAX}; {login.QUERY_MAX_BYTES // KIB} KiB; {server.BASIC_MAX_CHARS:,}",
    ],
    "a console's session": [
        f"{sessions.SESSION_LIFETIME.seconds // 3600} hours; {oauth.PUSHED_SECONDS // 60} minutes; {grants.CODE_SECONDS // 60} minute",
    ],
    "headers of a request": [
        f"{patience.HEADERS_MAX}, {patience.HEADER_MAX_BYTES // KIB} KiB", f"{patience.PATH_MAX_BYTES:,} bytes; {patience.LISTS_MAX_BYTES:,} bytes", f"within {patience.HEADER_SECONDS} seconds",
        f"within {patience.BODY_SECONDS} seconds", f"{patience.REQUEST_MAX_BYTES // MIB} MiB",
    ],
    "an answer that piles up": [f"{patience.UNREAD_SECONDS} seconds"],
    "what the audit log holds": [
        f"{deeds.NOTING_COST:,} more for every {deeds.NOTED_AT_ONCE_BYTES // KIB} KiB", f"{DETAILS_MAX_BYTES // KIB} KiB at most",
    ],
    "logins, returns with": [f"{budget.STRANGERS.maximum}, and {budget.STRANGERS.restore_rate} come back"],
    "pushed requests with": [f"{budget.PUSHES.maximum:,}, and {budget.PUSHES.restore_rate} come back", f"{oauth.PUSHED_MAX_BYTES:,}"],
    "a document that a process": [f"{admission.READING_COST} of the budget"],
}  # fmt: skip


@pytest.mark.parametrize("what", SAID)
def test_the_threat_model_says_the_limits_of_the_code(what: str) -> None:
    rows = re.findall(rf"^\| {re.escape(what)}.*$", SECURITY, re.M)
    assert len(rows) == 1
    assert [each for each in SAID[what] if each not in rows[0]] == []
    assert shape.ALIASES_MAX == shape.DIRECTIVES_MAX  # which one number stands for


def test_no_exception_is_made_once_for_all() -> None:
    """One that is raised again and again keeps what each raise held, on Python 3.11 for ever."""
    modules = [importlib.import_module(each.name) for each in pkgutil.walk_packages(gateway.__path__, "gateway.")]
    assert len(modules) > 100
    kept = [f"{module.__name__}.{name}" for module in modules for name, value in vars(module).items() if isinstance(value, BaseException)]
    assert kept == []
