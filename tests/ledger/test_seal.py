"""Sealing: everything posted is in a signed chain, a change of it shows, and a proof stands on its own."""

import asyncio
import hashlib
import json
import subprocess
import sys
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.database import Database
from gateway.ledger import merkle, prove
from gateway.ledger.seal import Mark, last_mark, seal, verify_chain
from tests.adjustment.test_adjust import adjust
from tests.points import TRANSFER, ann_logs_in, bob_joins, codes, mint, run_job
from tests.world import World

PROOF = """
query($id: ID!) { node(id: $id) { ... on Activity { proof { leaf header keyId signature path { side hash } } } } }
"""
SCRIPT = Path(__file__).parent.parent.parent / "docs" / "verify_proof.py"


async def faults(world: World) -> list[str]:
    database = Database(world.dsn, 2)
    await database.open()
    signer = await world.signer(database, SystemClock())
    try:
        return [fault async for _, _, fault in verify_chain(database, signer) if fault]
    finally:
        await database.close()


def check(folder: Path, proof: dict[str, object], keys: object) -> subprocess.CompletedProcess[str]:
    (folder / "proof.json").write_text(json.dumps(proof))
    (folder / "keys.json").write_text(json.dumps(keys))
    command = [sys.executable, "-I", "-S", str(SCRIPT), str(folder / "proof.json"), str(folder / "keys.json")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_a_proof_is_checked_by_the_independent_script_and_a_changed_one_is_not_proven(world: World) -> None:
    bought = [(await world.record(f"{n}.00"))["earning"]["id"] for n in range(1, 8)]
    assert (await world.ask("grocer", PROOF, id=bought[0]))["node"]["proof"] is None
    assert await run_job(world, "seal") >= 7
    keys = (await world.http.get("/ledger/keys")).json()
    for id in bought:
        proof = (await world.ask("grocer", PROOF, id=id))["node"]["proof"]
        said = check(world.data_dir, proof, keys)
        assert said.returncode == 0, said.stderr
        assert f"holds {id}: " in said.stdout
    assert json.loads(proof["leaf"])["entries"][0]["points"] == 7
    changed = {**proof, "leaf": proof["leaf"].replace('"points":7', '"points":8')}
    assert "does not lead to the block's root" in check(world.data_dir, changed, keys).stderr
    header = json.loads(proof["header"])
    forged = {**proof, "header": json.dumps({**header, "leaves": header["leaves"] + 1}, sort_keys=True, separators=(",", ":"))}
    assert "not signed with this key" in check(world.data_dir, forged, keys).stderr
    assert "not the object below `proof`" in check(world.data_dir, {"data": {"proof": proof}}, keys).stderr
    assert (await world.post("fuel", PROOF, id=bought[0])).json()["data"]["node"] is None


async def test_the_chain_holds_over_many_blocks_and_sealing_twice_seals_once(world: World) -> None:
    for n in range(5):
        await world.record(f"{n}.00")
        await asyncio.gather(run_job(world, "seal"), run_job(world, "seal"))
    await run_job(world, "seal")
    assert await run_job(world, "seal") == 0
    assert (await world.sql("select count(*) from sealed"))[0][0] == 5
    assert await faults(world) == []


async def test_a_leaf_is_the_json_that_any_program_would_write_of_the_transaction(world: World) -> None:
    await world.record("12.00", receipt="r", occurredAt="2026-10-14T08:00:00.000120-04:00")
    await world.record("0.00", occurredAt="2026-10-14T08:00:00Z")
    await world.give_back("r", total={"amount": "1.00", "currency": "USD"})
    await adjust(world, 3)
    found = await world.sql("select * from transaction join sealed_contents using (bucket, transaction_id) order by transaction_id")
    entries = await world.sql("select * from entry order by transaction_id, ordinal")
    assert len(found) == 4
    for row in found:
        expected = {
            "transaction": str(row["transaction_id"]),
            "kind": row["kind"],
            "member": hashlib.sha256(row["transaction_id"].bytes + row["member_id"].bytes).hexdigest(),
            "membership": str(row["membership_id"]) if row["membership_id"] else None,
            "partner": str(row["partner_id"]) if row["partner_id"] else None,
            "occurred_at": row["occurred_at"].astimezone(UTC).isoformat(),
            "posted_at": row["posted_at"].astimezone(UTC).isoformat(),
            "period": row["period"].isoformat(),
            "entries": [
                {"programme": str(e["programme_id"]), "account": e["account"], "partner": str(e["partner_id"]),
                 "contract": str(e["contract_id"]), "points": e["points"]}
                for e in entries if e["transaction_id"] == row["transaction_id"]
            ],
        }  # fmt: skip
        assert row["content"] == json.dumps(expected, sort_keys=True, separators=(",", ":"))
    assert any(row["occurred_at"].microsecond for row in found)
    assert any(row["membership_id"] is None for row in found)


async def test_no_proof_of_a_gift_says_where_who_gave_it_had_got_its_points_and_a_change_of_that_shows(world: World) -> None:
    await bob_joins(world)
    await world.record("30.00")
    await world.record("90.00", who="fuel")
    ann = await ann_logs_in(world)
    answer = await world.ask(ann, TRANSFER, i={"idempotencyKey": "gift", "card": "CARD-2", "programme": "MER", "points": 50})
    assert codes(answer["transferPoints"]) == []
    world.clock.set(world.clock.now() + timedelta(days=3 * 365))
    assert await run_job(world, "expire") > 0
    await run_job(world, "seal")
    bob = await mint(world, "member", (await world.sql("select member_id from card where number = 'CARD-2'"))[0][0])
    query = "{ me { activity(first: 5) { nodes { __typename points proof { leaf header keyId signature path { side hash } } } } } }"
    found = {node["__typename"]: node for node in (await world.ask(bob, query))["me"]["activity"]["nodes"]}
    assert {kind: node["points"] for kind, node in found.items()} == {"Transfer": 50, "Expiration": -50}
    parties = await world.sql("select partner_id::text from partner union select contract_id::text from contract")
    for node in found.values():
        (entry,) = json.loads(node["proof"]["leaf"])["entries"]
        assert set(entry) == {"account", "hash", "points", "programme"}
        assert entry["points"] == node["points"]
        assert not any(row[0] in node["proof"]["leaf"] for row in parties)
        assert check(world.data_dir, node["proof"], (await world.http.get("/ledger/keys")).json()).returncode == 0
    assert await faults(world) == []
    other = "(select partner_id from partner where code = 'airline')"
    await world.sql(f"update further_entry set partner_id = {other} where kind = 'transfer' and points > 0 and ordinal = 1")
    assert ["is not what was sealed" in fault for fault in await faults(world)] == [True]


BREAK = {
    "is not what was sealed": "update transaction set points = points + 1 where kind = 'earning'",
    "its leaves do not match its root": "delete from sealed where ordinal = 0 and height = 1",
    "its header does not match its hash": "update block set leaves = leaves + 1 where height = 1",
    "it does not follow the block before it": "delete from block where height = 1; update block set height = height - 1",
    "its signature is not the gateway's": "update block set signature = set_byte(signature, 0, (get_byte(signature, 0) + 1) % 256)",
    "transactions are missing": "insert into outbox (xid, kind, posted_at, members, transactions) "
    "select min(xid), 'earning', now(), array[gen_random_uuid()], array[gen_random_uuid()] from outbox",
}


@pytest.mark.parametrize("fault", list(BREAK))
async def test_every_way_to_break_the_chain_is_named(world: World, fault: str) -> None:
    for n in range(2):
        await world.record(f"{n + 1}.00")
        await world.record(f"{n + 1}.00")
        await run_job(world, "seal")
    assert await faults(world) == []
    for statement in BREAK[fault].split("; "):
        await world.sql(statement)
    assert any(fault in found for found in await faults(world))


async def test_what_a_running_transaction_may_still_come_before_is_not_sealed_yet(world: World) -> None:
    import asyncpg

    connection = await asyncpg.connect(world.dsn)
    running = connection.transaction()
    await running.start()
    await connection.fetchval("select pg_current_xact_id()")
    await world.record("5.00")
    database = Database(world.dsn, 2)
    await database.open()
    signer = await world.signer(database, SystemClock())
    try:
        assert await seal(database, signer, SystemClock().now()) == 0
        await running.rollback()
        assert await seal(database, signer, SystemClock().now()) == 1
    finally:
        await database.close()
        await connection.close()


def test_merkle_paths_lead_to_the_root_for_every_size_and_leaf() -> None:
    import hashlib

    for size in range(1, 20):
        leaves = [merkle.leaf_hash(bytes([n])) for n in range(size)]
        tree = merkle.Tree(b"".join(leaves))
        for index in range(size):
            climbed = leaves[index]
            for side, sibling in tree.path(index):
                left, right = (sibling, climbed) if side == "left" else (climbed, sibling)
                climbed = hashlib.sha256(b"\x01" + left + right).digest()
            assert climbed == tree.root
    assert len({merkle.Tree(b"".join(merkle.leaf_hash(bytes([n])) for n in range(size))).root for size in range(1, 20)}) == 19


async def test_a_chain_that_was_wiped_and_made_anew_is_told_by_a_block_that_was_noted_elsewhere(world: World) -> None:
    await world.record("5.00")
    await run_job(world, "seal")
    database = Database(world.dsn, 2)
    await database.open()
    signer = await world.signer(database, SystemClock())
    known = await last_mark(database)
    assert known is not None
    assert Mark.read(str(known)) == known
    for no_block in (f"0:{known.hash.hex()}", f"-1:{known.hash.hex()}", "1:aa", "1"):
        with pytest.raises(ValueError, match=r"no block|invalid literal"):
            Mark.read(no_block)
    assert [fault async for _, _, fault in verify_chain(database, signer, known) if fault] == []
    await world.sql("delete from sealed")
    await world.sql("delete from block")
    assert [fault async for _, _, fault in verify_chain(database, signer, known) if fault] == [
        "block 1, which is known, is gone: the chain ends with block 0"
    ]
    world.clock.set(world.clock.now() + timedelta(seconds=1))
    await run_job(world, "seal")
    assert await faults(world) == []  # by itself it is sound
    assert [fault async for _, _, fault in verify_chain(database, signer, known) if fault] == [
        "it is another block than the one that is known"
    ]
    await database.close()


async def test_a_blocks_tree_is_built_once_for_all_who_ask_for_proofs_of_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    class Counted(merkle.Tree):
        def __init__(self, leaves: bytes) -> None:
            built.append(len(leaves) // 32)
            super().__init__(leaves)

    monkeypatch.setattr(prove, "Tree", Counted)
    for block in range(2):
        for _ in range(3):
            await world.record(f"{block + 1}.00")
        await run_job(world, "seal")
    query = '{ membership(ref: {externalId: "ann"}) { activity(first: 10) { nodes { proof { leaf header path { side hash } } } } } }'
    for answer in await asyncio.gather(*(world.ask("grocer", query) for _ in range(3))):
        proofs = [node["proof"] for node in answer["membership"]["activity"]["nodes"]]
        assert len(proofs) == 6
        for each in proofs:
            climbed = merkle.leaf_hash(each["leaf"].encode())
            for step in each["path"]:
                pair = (bytes.fromhex(step["hash"]), climbed) if step["side"] == "left" else (climbed, bytes.fromhex(step["hash"]))
                climbed = hashlib.sha256(b"\x01" + b"".join(pair)).digest()
            assert climbed.hex() == json.loads(each["header"])["merkle_root"]
    assert built == [3, 3]
