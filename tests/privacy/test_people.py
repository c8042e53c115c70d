"""What is known of members as people: encrypted, found by blind index, shown to those who may see it, forgotten for good."""

import asyncio
import base64
import hashlib
import re
import time
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import ids
from gateway.access.vault import PURPOSES, open_vault, rewrap_vault
from gateway.cipher import CannotOpen, Wrapping, new_key, seal, unseal
from gateway.database import Database
from gateway.privacy.people import normal_email, normal_person, normal_phone, read_person, rewrap_people, store_person
from gateway.refusals import InputNotAccepted
from gateway.settings import read_settings
from tests.access.consenting import GRANT
from tests.access.test_oauth import authorization
from tests.house.test_docs import ROOT
from tests.house.test_embedded import Gateway
from tests.points import ann_logs_in, bob_joins, codes, mint, until_revoked
from tests.world import World

UPDATE = "mutation($i: UpdatePersonInput!) { updatePerson(input: $i) { person { name email phone } errors { code message path } } }"
FORGET = "mutation { forgetPerson(input: {confirm: true}) { errors { code } } }"
ME = "{ me { person { name email phone } } }"
ANN = {"name": "Ann  Other", "email": "Ann.Other@EXAMPLE.org", "phone": "+43 1 588 01-0"}
KNOWN = {"name": "Ann Other", "email": "ann.other@example.org", "phone": "+431588010"}


async def test_a_member_says_who_it_is_and_operators_find_it_however_it_is_written(world: World) -> None:
    ann = await ann_logs_in(world)
    answer = (await world.ask(ann, UPDATE, i=ANN))["updatePerson"]
    assert (answer["person"], codes(answer)) == (KNOWN, [])
    assert (await world.ask(ann, ME))["me"]["person"] == KNOWN
    find = "query($p: PersonRef!) { membersBy(person: $p) { id person { name } } }"
    me = (await world.ask(ann, "{ me { id } }"))["me"]["id"]
    for ref in ({"email": "ANN.OTHER@example.ORG"}, {"phone": "+43 (1) 58801 0"}):
        found = (await world.ask(await world.operator(), find, p=ref))["membersBy"]
        assert found == [{"id": me, "person": {"name": "Ann Other"}}]
    assert (await world.ask(await world.operator(), find, p={"email": "bob@example.org"}))["membersBy"] == []
    assert (await world.post("grocer", find, p={"email": "ann.other@example.org"})).status_code == 403


@pytest.mark.parametrize("text", ["a" + "\u0300\u0316" * 100_000 + "@example.com", "1" * 100_000, "+" + "\u0660" * 100_000])
def test_what_is_too_long_for_an_address_or_a_number_is_not_looked_at(text: str) -> None:
    began = time.process_time()
    for normal in (normal_email, normal_phone):
        with pytest.raises(InputNotAccepted):
            normal(text)
    assert time.process_time() - began < 0.5


async def test_nothing_of_a_person_can_be_read_in_the_database(world: World) -> None:
    await world.ask(await ann_logs_in(world), UPDATE, i=ANN)
    tables = [r[0] for r in await world.sql("select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace")]
    for table in tables:
        for row in await world.sql(f'select t::text as line from "{table}" t'):
            text = row["line"].lower()
            for secret in ("other", "58801", "ann.other"):
                assert secret not in text, table
                assert secret.encode().hex() not in text, table


async def test_personal_data_is_in_no_log_and_no_error(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    ann = await ann_logs_in(world)
    await world.ask(ann, UPDATE, i=ANN)
    await world.sql("update person set sealed = '\\x00'")
    answer = await world.post(ann, ME)
    assert answer.json()["data"]["me"]["person"] is None
    assert answer.json()["errors"][0]["extensions"]["code"] == "INTERNAL"
    await world.ask(await world.operator(), "query($p: PersonRef!) { membersBy(person: $p) { id } }", p={"email": ANN["email"]})
    told = "".join(capfd.readouterr()) + answer.text
    for secret in ("Other", "other@", "58801"):
        assert secret not in told
    assert "unexpected error" in told


@pytest.mark.parametrize(("field", "value"), [("email", "no address"), ("email", "a@b@c"), ("phone", "12345"), ("phone", "+1 2"), ("name", "x" * 201)])
async def test_what_is_no_address_number_or_name_is_refused_and_changes_nothing(world: World, field: str, value: str) -> None:
    ann = await ann_logs_in(world)
    await world.ask(ann, UPDATE, i=ANN)
    answer = (await world.ask(ann, UPDATE, i={**ANN, field: value}))["updatePerson"]
    assert codes(answer) == ["INPUT_NOT_ACCEPTED"]
    assert value not in answer["errors"][0]["message"]
    assert (await world.ask(ann, ME))["me"]["person"] == KNOWN


async def test_what_is_forgotten_is_gone_with_its_key(world: World) -> None:
    ann = await ann_logs_in(world)
    await world.ask(ann, UPDATE, i=ANN)
    await world.ask(ann, FORGET)
    await until_revoked(world, ann)
    assert (await world.sql("select (select count(*) from person) + (select count(*) from person_lookup)"))[0][0] == 0


async def test_keys_are_wrapped_anew_and_the_old_one_opens_nothing_any_more(world: World) -> None:
    await world.ask(await ann_logs_in(world), UPDATE, i=ANN)
    member = (await world.sql("select member_id from card"))[0][0]
    old = (world.data_dir / "encryption.key").read_text()
    new = base64.b64encode(new_key()).decode()
    database = Database(world.dsn, 2)
    await database.open()
    both = await open_vault(database, read_settings({"GATEWAY_ENCRYPTION_KEY": f"{new},{old}"}))
    async with database.transaction() as tx:
        assert await rewrap_vault(tx, both.wrapping) == len(PURPOSES)
        assert await rewrap_people(tx, both.wrapping) == 1
    vault = await open_vault(database, read_settings({"GATEWAY_ENCRYPTION_KEY": new}))
    async with database.reading() as tx:
        found = await read_person(tx, vault, member)
    assert found is not None
    assert found.email == KNOWN["email"]
    with pytest.raises(CannotOpen, match="GATEWAY_ENCRYPTION_KEY"):
        await open_vault(database, read_settings({"GATEWAY_ENCRYPTION_KEY": old}))
    await database.close()


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.binary(min_size=1, max_size=32), st.integers(0, 10_000))
def test_what_is_sealed_opens_with_its_key_for_its_row_unchanged_and_not_otherwise(plain: bytes, about: bytes, at: int) -> None:
    key = new_key()
    sealed = seal(key, plain, about)
    assert unseal(key, sealed, about) == plain
    changed = bytearray(sealed)
    changed[at % len(sealed)] ^= 1
    for wrong in ((new_key(), sealed, about), (key, sealed, about + b"x"), (key, bytes(changed), about), (key, sealed[:-1], about)):
        with pytest.raises(CannotOpen):
            unseal(*wrong)
    wrapping = Wrapping([key])
    assert wrapping.unwrap(wrapping.wrap(key, about), about) == key


def test_addresses_and_numbers_have_one_form() -> None:
    assert normal_email(" Ann@EXAMPLE.org".strip()) == normal_email("ann@example.ORG") == "ann@example.org"
    assert normal_email("J\u030c@example.org") == normal_email("j\u030c@example.org") == normal_email("\u01f0@example.org")
    assert normal_email("Info@βόλος.example") == "info@βόλος.example"  # another domain than that with another sigma (IDNA 2008)
    assert normal_phone("+1 (212) 555-0123") == "+12125550123"
    with pytest.raises(InputNotAccepted):
        normal_phone("0123 456")


async def test_an_error_about_one_field_repeats_nothing_of_the_others(world: World) -> None:
    find = "query($p: PersonRef!) { membersBy(person: $p) { id } }"
    written = 'query { membersBy(person: {phone: "+15550001", emails: "ann@secret.example"}) { id } }'
    for answer in (
        await world.post(await world.operator(), find, p={"phone": "+15550001", "emails": "ann@secret.example"}),
        await world.post(await world.operator(), written),
        await world.post("grocer", "query($r: MemberRef!) { membership(ref: $r) { id } }", r={"cards": "ann@secret.example"}),
    ):
        message = answer.json()["errors"][0]["message"]
        assert "Did you mean" in message
        assert "secret" not in answer.text
        assert "5550001" not in answer.text


async def test_each_member_has_a_key_of_its_own_and_what_is_sealed_opens_in_its_own_row_alone(world: World) -> None:
    ann = await ann_logs_in(world)
    await world.ask(ann, UPDATE, i=ANN)
    await bob_joins(world)
    members = {row["number"]: row["member_id"] for row in await world.sql("select number, member_id from card")}
    database = Database(world.dsn, 2)
    await database.open()
    vault = await world.vault(database)
    async with database.transaction() as tx:
        await store_person(tx, vault, members["CARD-2"], normal_person("Bob", ANN["email"], None), world.clock.now())
    rows = {row["member_id"]: row for row in await world.sql("select * from person")}
    assert len(rows) == 2
    keys = {vault.wrapping.unwrap(row["wrapped_key"], member.bytes) for member, row in rows.items()}
    assert len(keys) == 2
    one, two = members.values()
    for member, other in ((one, two), (two, one)):
        with pytest.raises(CannotOpen):
            vault.wrapping.unwrap(rows[other]["wrapped_key"], member.bytes)
        with pytest.raises(CannotOpen):  # not even with its own key
            unseal(vault.wrapping.unwrap(rows[other]["wrapped_key"], other.bytes), rows[other]["sealed"], member.bytes)
    # Somebody who owns the database gives Bob what is Ann's: it does not open.
    await world.sql("update person p set sealed = q.sealed, wrapped_key = q.wrapped_key from person q where p.member_id = $1 and q.member_id = $2", two, one)
    async with database.reading() as tx:
        with pytest.raises(CannotOpen):
            await read_person(tx, vault, two)
    before = vault.wrapping.unwrap(rows[one]["wrapped_key"], one.bytes)
    await world.ask(ann, UPDATE, i=ANN)
    after = (await world.sql("select wrapped_key from person where member_id = $1", one))[0][0]
    assert vault.wrapping.unwrap(after, one.bytes) != before  # what is known anew lies under a new key
    await database.close()


async def test_a_blind_index_says_nothing_without_its_key_and_nothing_across_fields(world: World) -> None:
    await world.ask(await ann_logs_in(world), UPDATE, i=ANN)
    kept = {row["field"]: row["digest"] for row in await world.sql("select field, digest from person_lookup")}
    assert set(kept) == {"email", "phone"}
    database = Database(world.dsn, 2)
    await database.open()
    vault = await world.vault(database)
    await database.close()
    for field, text in (("email", KNOWN["email"]), ("phone", KNOWN["phone"])):
        assert kept[field] == vault.blind(field, text)
        assert kept[field] not in (hashlib.sha256(text.encode()).digest(), hashlib.sha256(field.encode() + text.encode()).digest())
    assert vault.blind("email", "same") != vault.blind("phone", "same")


async def test_the_words_of_an_unexpected_error_are_told_to_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*given: object) -> None:
        raise ValueError("ann.other@example.org")

    monkeypatch.setattr("gateway.privacy.graph.people.read_person", fails)
    answer = await world.post(await ann_logs_in(world), ME)
    error = answer.json()["errors"][0]
    assert (error["extensions"]["code"], "example.org" in answer.text) == ("INTERNAL", False)
    assert error["extensions"]["correlationId"] in error["message"]


async def test_after_forgetting_the_same_login_stores_nothing_any_more(world: World) -> None:
    """Its token serves a second longer for what reads; what it stored would be there for good, with nobody to take it back."""
    ann = await ann_logs_in(world)
    await world.ask(ann, UPDATE, i=ANN)
    given = {"partner": "fuel", "purpose": "to save points", "scopes": ["profile:read"], "dataClasses": ["contact"]}
    answers = await asyncio.gather(
        world.post(ann, FORGET), *(world.post(ann, UPDATE, i=ANN) for _ in range(4)), *(world.post(ann, GRANT, i=given) for _ in range(4))
    )
    assert codes(answers[0].json()["data"]["forgetPerson"]) == []
    for query, given_ in ((UPDATE, ANN), (GRANT, given)):
        late = await world.post(ann, query, i=given_)
        if late.status_code == 200:
            (payload,) = late.json()["data"].values()
            assert codes(payload) == ["NOT_ALLOWED"]
        else:
            assert late.status_code == 401
    assert await world.sql("select from person") == []
    assert await world.sql("select from consent where withdrawn_at is null") == []


async def test_an_operator_at_the_machine_forgets_members_and_it_is_noted_whom(world: World) -> None:
    ann = await ann_logs_in(world)
    await world.ask(ann, UPDATE, i=ANN)
    given = {"partner": "fuel", "purpose": "to save points", "scopes": ["profile:read"], "dataClasses": ["contact"]}
    await world.ask(ann, GRANT, i=given)
    member = ids.show("mem", (await world.sql("select member_id from card where number = 'CARD-1'"))[0][0])
    gateway = Gateway(world.data_dir)
    gateway.environment |= {"DATABASE_URL": world.dsn}
    wrong = gateway.run("member", "forget", member, "mem_x")
    assert (wrong.returncode, "nothing was done" in re.sub(r"[│\s]+", " ", wrong.stderr)) == (2, True)
    assert len(await world.sql("select from person")) == 1
    # Of those on the list some may have come after the backup that was restored.
    consent = ids.show("cns", (await world.sql("select consent_id from consent"))[0][0])
    unknown = ids.show("cns", uuid4())
    ran = gateway.run("member", "withdraw", unknown, consent)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, f"{consent} is withdrawn.\n", f"gateway: there is no {unknown}.\n")
    assert await world.sql("select from consent where withdrawn_at is null") == []
    nobody = ids.show("mem", uuid4())
    ran = gateway.run("member", "forget", nobody, member)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, f"{member} is forgotten.\n", f"gateway: there is no {nobody}.\n")
    assert await world.sql("select from person") == await world.sql("select from person_lookup") == []
    assert await world.sql("select from consent where withdrawn_at is null") == []
    await bob_joins(world)
    bob = await mint(world, "member", (await world.sql("select member_id from card where number = 'CARD-2'"))[0][0])
    await world.ask(bob, FORGET)
    # As the guide says to look for them once a backup is restored.
    asked = re.findall(r"`audit\(filter: (\{field: \"forget\"\})\)`", (ROOT / "docs/operating.md").read_text())
    found = f"{{ audit(filter: {asked[0]}, first: 9) {{ nodes {{ action about }} }} }}"
    noted = (await world.ask(await world.operator(), found))["audit"]["nodes"]
    assert [(each["action"], len(each["about"])) for each in noted] == [("forget person", 1), ("member forget", 1)]
    assert noted[1]["about"] == [member]
    await until_revoked(world, ann)


async def test_who_tried_to_log_in_cannot_be_guessed_from_what_is_counted_and_is_forgotten_too(world: World) -> None:
    ann = await ann_logs_in(world)
    query, _ = authorization(world, client_id="member-app", redirect_uri="com.example.loyalty:/callback")
    assert (await world.http.post("/oauth/authorize", params=query, data={"login": "ann", "password": "wrong"})).status_code == 401
    counted = await world.sql("select login_hash, failures from login_failure where failures > 0")
    assert [each["failures"] for each in counted] == [1]
    assert counted[0]["login_hash"] not in (hashlib.sha256(b"ann").digest(), b"ann")
    assert codes((await world.ask(ann, FORGET))["forgetPerson"]) == []
    assert await world.sql("select from login_failure where login_hash = $1", counted[0]["login_hash"]) == []
