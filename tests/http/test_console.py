"""GraphiQL in real Chromium: log in, run an example, see the answer."""

import contextlib
import json
import os
import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.async_api import Dialog, async_playwright
from playwright.async_api import TimeoutError as TooSlow

from gateway.access.scopes import CEILING
from gateway.http.guard import missing
from tests.access.consenting import BACK, client_with_page
from tests.access.test_oauth import authorization
from tests.founding import OPERATOR_PASSWORD
from tests.points import ENROL, second_operator
from tests.world import World, engine

ROOT = Path(__file__).parent.parent.parent

TRIES = 6
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium; CI has it")
async def test_an_operator_logs_in_and_runs_the_first_example(world: World, tmp_path: Path) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            page = await browser.new_page(viewport={"width": 1400, "height": 900})
            foreign: list[str] = []
            page.on("request", lambda r: None if r.url.startswith((world.url, "data:", "blob:")) else foreign.append(r.url))
            errors: list[str] = []
            page.on("pageerror", lambda e: errors.append(str(e)))
            await page.goto(f"{world.url}/graphiql")
            await page.fill("#login", "olga")
            await page.fill("#password", "wrong password")
            await page.fill("#code", "000000")
            await page.click("button")
            assert await page.text_content("[role=alert]") == "The login name, the password or the one-time code is wrong."
            await page.screenshot(path=tmp_path / "login.png")
            await page.fill("#password", OPERATOR_PASSWORD)
            await page.fill("#code", world.code_of("olga"))
            await page.click("button")
            run = page.get_by_role("button", name="Execute query (Ctrl-Enter)")
            await run.wait_for()
            for name in ("Partners", "Month", "Member", "Wallet", "Onboard", "PublishRate", "Close", "Audit", "Integrity"):
                await page.get_by_role("tab", name=re.compile(f"^{name}")).first.wait_for(timeout=5_000)
            await page.get_by_role("tab", name="Partners").click()
            result = page.locator(".result-window", has_text="grocer")
            for _ in range(TRIES):  # a click while the tab is still being filled runs nothing
                await run.click()
                with contextlib.suppress(TooSlow):
                    await result.wait_for(timeout=5_000)
                    break
            assert "grocer" in await page.locator(".result-window").inner_text()
            await page.screenshot(path=tmp_path / "graphiql.png")
            # As a role that may not, the same operation is refused, and with all of her roles it runs again.
            for role, said in (("auditor", "grocer"), ("", "grocer"), ("support", "contracts:read")):
                async with page.expect_response("**/oauth/token"):
                    await page.get_by_label("Role").select_option(role)
                await run.click()
                await page.locator(".result-window", has_text=said).wait_for(timeout=5_000)
            await page.screenshot(path=tmp_path / "role.png")
            # A reload asks for no password: the session of the login page is still there.
            await page.reload()
            await run.wait_for()
            assert foreign == []
            assert errors == []
            if folder := os.environ.get("GATEWAY_TEST_SCREENSHOTS"):  # for a person to look at
                shutil.copytree(
                    tmp_path, folder, dirs_exist_ok=True, ignore=lambda _, names: [n for n in names if n[-4:] != ".png"]
                )
        finally:
            await browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium; CI has it")
async def test_the_operators_day_is_done_with_the_saved_operations(world: World, tmp_path: Path) -> None:
    card = {"externalId": "carla", "card": "MR-00000900"}  # the member whom the saved operations look at
    assert (await world.ask("grocer", ENROL, i=card))["enrolMember"]["errors"] == []
    await world.record("25.00", member={"externalId": "carla"}, receipt="carlas", occurredAt="2026-10-14T12:00:00Z")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            page = await browser.new_page(viewport={"width": 1400, "height": 900})
            run = page.get_by_role("button", name="Execute query (Ctrl-Enter)")

            async def log_in(login: str = "olga") -> None:
                await page.fill("#login", login)
                await page.fill("#password", OPERATOR_PASSWORD)
                await page.fill("#code", world.code_of(login))
                await page.click("button")
                await run.wait_for()

            async def done(tab: str) -> Any:
                await page.get_by_role("tab", name=re.compile(f"^{tab}")).click()
                await page.locator(".graphiql-query-editor", has_text=re.compile(rf"(query|mutation)\s*{tab}")).wait_for()
                return await answer_of(tab)

            async def answer_of(named: str) -> Any:
                said: dict[str, Any] = {}
                for _ in range(TRIES):  # until the page has noticed that the tab holds another operation
                    # What GraphiQL asks of the schema, when it begins, is no answer to this.
                    async with page.expect_response(
                        lambda r: r.url.endswith("/graphql") and "__schema" not in (r.request.post_data or "")
                    ) as answered:
                        await run.click()
                    said = await (await answered.value).json()
                    if "There is no operation" not in str(said):
                        break
                    await page.wait_for_timeout(200)
                assert "data" in said, (named, said)
                return said

            await page.goto(f"{world.url}/graphiql")
            await log_in()
            assert {"grocer", "fuel", "airline"} <= {each["code"] for each in (await done("Partners"))["data"]["partners"]["nodes"]}
            found = (await done("Member"))["data"]["memberByCard"]
            assert found["activity"]["nodes"][0]["purchase"]["receipt"] == "carlas"
            assert (await done("Wallet"))["data"]["memberByCard"]["wallets"][0]["history"]["nodes"][0]["balance"] == 25
            assert (await done("Onboard"))["data"]["onboardPartner"]["partner"]["code"] == "bakery"
            assert (await done("PublishRate"))["data"]["publishConversionRate"] == {
                "rate": {"rate": {"take": 200, "give": 110}, "validFrom": "2027-01-01T00:00:00Z"}, "errors": [],
            }  # fmt: skip
            assert all(check["holds"] for check in (await done("Integrity"))["data"]["integrity"]["checks"])
            assert (await done("Month"))["data"]["period"]["state"] == "OPEN"
            # A month is closed with a login that is not old: the page says so, and brings the operator to it.
            world.clock.set(world.clock.now() + timedelta(minutes=16))
            asked: list[str] = []

            async def accept(dialog: Dialog) -> None:
                asked.append(dialog.message)
                await dialog.accept()

            page.on("dialog", accept)
            await page.reload()  # the session of the login page is good for hours
            await run.wait_for()
            await page.get_by_role("tab", name=re.compile("^Close")).click()
            await page.locator(".graphiql-query-editor", has_text=re.compile(r"mutation\s*Close")).click()
            await page.keyboard.press("Control+A")
            await page.keyboard.insert_text('mutation Close { closePeriod(input: {month: "2026-01"}) { period { state } errors { code } } }')
            for _ in range(TRIES):
                await run.click()
                with contextlib.suppress(TooSlow):
                    await page.wait_for_selector("#login", timeout=3_000)
                    break
            assert "two factors" in asked[0]
            await log_in()
            await page.locator(".graphiql-query-editor", has_text=re.compile("2026-01")).wait_for()
            closed = (await answer_of("closePeriod"))["data"]["closePeriod"]
            assert closed == {"period": {"state": "CLOSED"}, "errors": []}
            await page.screenshot(path=tmp_path / "closed.png")
            log = (await done("Audit"))["data"]["audit"]["nodes"]
            assert {"mutation closePeriod", "mutation onboardPartner", "mutation publishConversionRate"} <= {each["action"] for each in log}
            # What one operator wrote is in its tab alone, and gone when another one logs in there.
            assert await page.evaluate("Object.keys(sessionStorage).some(key => key.startsWith('graphiql:'))")
            await page.evaluate("sessionStorage.setItem('graphiql:query', 'of Olga alone')")
            await page.get_by_role("button", name="Log out").click()
            await page.wait_for_selector("#login")
            await second_operator(world)
            world.clock.set(world.clock.now() + timedelta(minutes=1))
            await page.evaluate("sessionStorage.setItem('graphiql:query', 'of Olga alone')")
            await log_in("otto")
            kept = await page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}])")
            assert "of Olga alone" not in kept
            assert json.loads(kept)[1] == {}
            await page.get_by_role("button", name="Log out").click()
            await page.wait_for_selector("#login")
            if folder := os.environ.get("GATEWAY_TEST_SCREENSHOTS"):
                shutil.copytree(tmp_path, folder, dirs_exist_ok=True, ignore=lambda _, names: [n for n in names if n[-4:] != ".png"])
        finally:
            await browser.close()
    assert await world.sql("select state from period where month = '2026-01-01'") == [("closed",)]
    # What is left is the session that Otto began beside the browser.
    assert await world.sql("select login from console_session join account using (account_id)") == [("otto",)]


def test_every_saved_operation_is_one_of_the_contract_and_within_an_operators_rights() -> None:
    saved = re.findall(r"name: \"(\w+)\",\s+query: `([^`]+)`", (ROOT / "console/src/examples.js").read_text())
    assert len(saved) == 9
    for name, text in saved:
        prepared = engine().prepare(text)
        assert list(missing(prepared.needs, CEILING["operator"])) == [], name


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium; CI has it")
async def test_the_consent_page_and_the_page_of_limits_are_shown_as_they_are_meant(world: World, tmp_path: Path) -> None:
    await client_with_page(world)
    query, _ = authorization(world, client_id="partner-fuel", redirect_uri=BACK, scope="balance:read profile:read", data_classes="contact")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            page = await browser.new_page(viewport={"width": 900, "height": 1000})
            broken: list[str] = []
            page.on("console", lambda said: broken.append(said.text) if said.type == "error" else None)
            for name, path in (("consent", f"/oauth/authorize?{urlencode(query)}"), ("limits", "/limits")):
                await page.goto(world.url + path)
                # The styles are let in by their nonce: the page is not bare.
                assert await page.evaluate("getComputedStyle(document.querySelector('main')).backgroundColor") == "rgb(255, 255, 255)"
                await page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
            await page.goto(f"{world.url}/oauth/authorize?{urlencode(query)}")
            for label, count in (("Login name", 1), ("Password", 1), ("One-time code", 0)):
                assert await page.get_by_label(label).count() == count
            buttons = [await each.inner_text() for each in await page.get_by_role("button").all()]
            assert buttons == ["Log in and allow", "Do not allow"]
            assert [text for text in broken if "favicon" not in text] == []
            if folder := os.environ.get("GATEWAY_TEST_SCREENSHOTS"):
                shutil.copytree(tmp_path, folder, dirs_exist_ok=True, ignore=lambda _, names: [n for n in names if n[-4:] != ".png"])
        finally:
            await browser.close()
