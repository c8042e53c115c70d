"""What tests of the ledger's newer movements ask for, in one place: the documents, and their shortest words."""

import asyncio
from typing import Any
from uuid import UUID

from gateway.access.scopes import CEILING
from gateway.access.tokens import Subject
from gateway.database import Database
from tests.founding import OPERATOR_PASSWORD
from tests.world import World, log_in

HOLD = """
mutation($i: HoldPointsInput!) { holdPoints(input: $i) {
  hold { id points captured released state expiresAt } errors { code message } } }
"""
CAPTURE = """
mutation($i: CaptureHoldInput!) { captureHold(input: $i) {
  redemption { id points takes { points expiresOn funder { code } } } hold { captured released state }
  errors { code message } } }
"""
RELEASE = """
mutation($i: ReleaseHoldInput!) { releaseHold(input: $i) { hold { captured released state } errors { code } } }
"""
REVERSE = """
mutation($i: ReverseRedemptionInput!) { reverseRedemption(input: $i) {
  reversal { id points redemption } errors { code message } } }
"""
TRANSFER = """
mutation($i: TransferPointsInput!) { transferPoints(input: $i) {
  transfer { id points direction message } errors { code message } } }
"""
ADJUST = """
mutation($i: AdjustPointsInput!) { adjustPoints(input: $i) {
  adjustment { id state points transaction } errors { code message } } }
"""
APPROVE = """
mutation($i: DecideAdjustmentInput!) { approveAdjustment(input: $i) { adjustment { state } errors { code message } } }
"""
REJECT = """
mutation($i: DecideAdjustmentInput!) { rejectAdjustment(input: $i) { adjustment { state } errors { code message } } }
"""
TERMS = """
mutation($i: SetProgrammeTermsInput!) { setProgrammeTerms(input: $i) { programme { pendingDays spendMost } errors { code } } }
"""
ENROL = "mutation($i: EnrolMemberInput!) { enrolMember(input: $i) { membership { id } errors { code } } }"


def codes(payload: dict[str, Any]) -> list[str]:
    """The codes of a payload's refusals."""
    return [error["code"] for error in payload["errors"]]


async def hold(world: World, points: int, who: str = "fuel", **changes: Any) -> dict[str, Any]:
    given = {
        "idempotencyKey": f"hold-{next(world.numbers)}",
        "member": {"externalId": "ann"},
        "programme": "MER",
        "points": points,
    }
    return (await world.ask(who, HOLD, i={**given, **changes}))["holdPoints"]


async def capture(world: World, hold_id: str, points: int | None = None, who: str = "fuel", **changes: Any) -> dict[str, Any]:
    given = {"idempotencyKey": f"capture-{next(world.numbers)}", "hold": hold_id, "points": points}
    return (await world.ask(who, CAPTURE, i={**given, **changes}))["captureHold"]


async def release(world: World, hold_id: str, who: str = "fuel", key: str | None = None) -> dict[str, Any]:
    given = {"idempotencyKey": key or f"release-{next(world.numbers)}", "hold": hold_id}
    return (await world.ask(who, RELEASE, i=given))["releaseHold"]


async def reverse(world: World, redemption: str, points: int | None = None, who: str = "fuel", **changes: Any) -> dict[str, Any]:
    given = {"idempotencyKey": f"reverse-{next(world.numbers)}", "redemption": redemption, "points": points}
    return (await world.ask(who, REVERSE, i={**given, **changes}))["reverseRedemption"]


async def terms(world: World, **given: Any) -> None:
    """Set the terms of MER."""
    answer = await world.ask(await world.operator(), TERMS, i={"programme": "MER", **given})
    assert answer["setProgrammeTerms"]["errors"] == []


async def run_job(world: World, name: str) -> int:
    """Run a background job now, as the schedule would."""
    return await world.jobs.run_now(name)


async def ann_logs_in(world: World) -> str:
    """A token of Ann's own app."""
    if "ann" not in world.tokens:
        member = (await world.sql("select member_id from card where number = 'CARD-1'"))[0]["member_id"]
        await world.set_password("ann", "ann's password", member)
        world.tokens["ann"] = await log_in(world, "member-app", "com.example.loyalty:/callback", "ann", "ann's password")
    return world.tokens["ann"]


async def ann_hands_over(world: World, *scopes: str) -> str:
    """A token of Ann's own app that can do no more than this, for a partner that she allowed so much."""
    await ann_logs_in(world)
    return await log_in(world, "member-app", "com.example.loyalty:/callback", "ann", "ann's password", " ".join(scopes))


async def until_revoked(world: World, token: str) -> None:
    """Until a token serves no more; within two seconds it must not, in any process."""
    async with asyncio.timeout(2):
        while (await world.post(token, "{ __typename }")).status_code != 401:
            await asyncio.sleep(0.05)


async def second_operator(world: World) -> str:
    """A token of another operator than Olga."""
    if "otto" not in world.tokens:
        await world.new_operator("otto", ["admin"])
        world.http.cookies.clear()
        world.tokens["otto"] = await log_in(world, "console", f"{world.url}/graphiql", "otto", OPERATOR_PASSWORD)
        world.http.cookies.clear()
    return world.tokens["otto"]


async def bob_joins(world: World) -> None:
    """A second member, known to the grocer as bob and by CARD-2."""
    answer = await world.ask("grocer", ENROL, i={"externalId": "bob", "card": "CARD-2"})
    assert answer["enrolMember"]["errors"] == []


async def mint(world: World, kind: str, subject_id: UUID) -> str:
    """A token of anybody at the world's own time, without the way through the pages."""
    database = Database(world.dsn, 2)
    await database.open()
    signer = await world.signer(database)
    await database.close()
    return signer.issue(Subject(kind, subject_id), "test", CEILING[kind], world.clock.now(), strong_since=world.clock.now())


async def speaking_of(world: World, table: str, value: str) -> None:
    """Whoever writes to a table fails, in words that hold a value, as PostgreSQL's often do."""
    fails = f"begin perform '{value}'::int; return null; end"
    await world.sql(f"create function speak() returns trigger language plpgsql as $$ {fails} $$")
    await world.sql(f"create trigger speak before insert or update on {table} for each row execute function speak()")
