"""GraphiQL in real Chromium: whose page it is, and with which rights it asks."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from playwright.async_api import BrowserContext, Dialog, Page, Route, async_playwright

from gateway.access.scopes import ROLES
from gateway.http.sessions import SESSION_COOKIE
from tests.founding import OPERATOR_PASSWORD
from tests.http.test_console import ARGUMENTS, CHROMIUM
from tests.world import World, said_by

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium; CI has it")


@asynccontextmanager
async def chromium() -> AsyncIterator[tuple[BrowserContext, list[str]]]:
    """A browser, and the tokens with which its pages ask for anything but the schema."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = await browser.new_context(viewport={"width": 1400, "height": 900})
        tokens: list[str] = []

        async def note(route: Route) -> None:
            if "__schema" not in (route.request.post_data or ""):
                tokens.append((await route.request.all_headers())["authorization"].removeprefix("Bearer "))
            await route.continue_()

        await context.route("**/graphql", note)
        try:
            yield context, tokens
        finally:
            await browser.close()


async def log_in(world: World, page: Page, login: str) -> None:
    await page.goto(f"{world.url}/graphiql")
    await fill_in(world, page, login)


async def fill_in(world: World, page: Page, login: str) -> None:
    await page.fill("#login", login)
    await page.fill("#password", OPERATOR_PASSWORD)
    await page.fill("#code", world.code_of(login))
    await page.click("button")
    await choose_partners(page)


async def choose_partners(page: Page) -> None:
    await page.get_by_role("tab", name=re.compile("^Partners")).first.click()
    await page.locator(".graphiql-query-editor", has_text=re.compile(r"query\s*Partners")).wait_for()


async def run(page: Page) -> None:
    await page.get_by_role("button", name="Execute query (Ctrl-Enter)").click()


async def test_what_one_operators_tab_was_about_to_send_is_not_sent_in_anothers_name(world: World) -> None:
    await world.new_operator("otto", ["admin"])
    async with chromium() as (context, tokens):
        ottos = await context.new_page()
        await log_in(world, ottos, "otto")
        await ottos.evaluate("window.isOttos = true")
        await run(ottos)
        await ottos.locator(".result-window", has_text="grocer").wait_for()
        otto = said_by(tokens[-1])["sub"]
        await context.clear_cookies()
        await log_in(world, await context.new_page(), "olga")
        before = len(tokens)
        # What Otto is writing in this very moment comes into the storage a little later.
        await ottos.bring_to_front()
        await ottos.locator(".graphiql-query-editor").click()
        await ottos.keyboard.press("Control+A")
        await ottos.keyboard.insert_text("query Partners { ottosSecret }")
        await ottos.evaluate("const real = Date.now.bind(Date); Date.now = () => real() + 600_000")  # its token has ended
        await ottos.bring_to_front()
        async with ottos.expect_event("load"):
            await run(ottos)
        await ottos.get_by_role("tab", name=re.compile("^Partners")).first.wait_for()
        await ottos.wait_for_timeout(1_500)  # longer than GraphiQL waits before it writes
        assert "ottosSecret" not in await ottos.evaluate("JSON.stringify({...sessionStorage})")
        assert "ottosSecret" not in await ottos.content()
        assert await ottos.evaluate("window.isOttos") is None
        assert await ottos.evaluate("sessionStorage.getItem('operator')") != otto
        assert tokens[before:] == []


async def test_the_role_that_was_chosen_last_is_the_one_that_asks_whichever_token_comes_first(world: World) -> None:
    async with chromium() as (context, tokens):
        page = await context.new_page()
        await log_in(world, page, "olga")
        may_come = asyncio.Event()

        async def hold_up(route: Route) -> None:
            if "scope=" not in route.request.url:
                await may_come.wait()
            await route.continue_()

        await context.route("**/oauth/authorize**", hold_up)
        role = page.get_by_label("Role")
        async with page.expect_request("**/oauth/authorize**"):
            await role.select_option("")  # what is chosen already changes nothing, so another comes between
            await role.select_option("auditor")
        async with page.expect_request("**/oauth/authorize**"):
            await role.select_option("")
        async with page.expect_response("**/oauth/token"):
            await role.select_option("auditor")
        async with page.expect_response("**/oauth/token"):
            may_come.set()
        await run(page)
        await page.locator(".result-window", has_text="grocer").wait_for()
        assert await role.input_value() == "auditor"
        assert set(said_by(tokens[-1])["scope"].split()) <= set(ROLES["auditor"])


@pytest.mark.parametrize(("first", "role"), [("olga", "auditor"), ("otto", "")])
async def test_the_role_that_was_chosen_stays_chosen_over_a_login_of_the_same_operator(world: World, first: str, role: str) -> None:
    await world.new_operator("otto", ["admin"])
    async with chromium() as (context, tokens):
        page = await context.new_page()
        await log_in(world, page, first)
        async with page.expect_response("**/oauth/token"):
            await page.get_by_label("Role").select_option("auditor")
        await context.clear_cookies()
        await page.evaluate("const real = Date.now.bind(Date); Date.now = () => real() + 600_000")
        world.clock.set(world.clock.now() + timedelta(seconds=31))  # a one-time code serves once
        await run(page)
        await page.wait_for_selector("#login")
        await fill_in(world, page, "olga")
        await run(page)
        await page.locator(".result-window", has_text="grocer").wait_for()
        assert await page.get_by_label("Role").input_value() == role
        asked, auditors = set(said_by(tokens[-1])["scope"].split()), set(ROLES["auditor"])
        assert asked <= auditors if role else asked > auditors


@pytest.mark.parametrize(("next_", "role"), [("olga", "auditor"), ("otto", "")])
async def test_the_role_that_was_chosen_stays_chosen_when_the_page_is_loaded_again(world: World, next_: str, role: str) -> None:
    await world.new_operator("otto", ["admin"])
    async with chromium() as (context, tokens):
        page, auditors = await context.new_page(), set(ROLES["auditor"])
        await log_in(world, page, "olga")
        async with page.expect_response("**/oauth/token"):
            await page.get_by_label("Role").select_option("auditor")
        if next_ != "olga":  # who logs in in another tab
            await context.clear_cookies()
            await log_in(world, await context.new_page(), next_)
        before = len(tokens)
        await page.reload()
        await choose_partners(page)
        await run(page)
        await page.locator(".result-window", has_text="grocer").wait_for()
        assert await page.get_by_label("Role").input_value() == role
        asked = set(said_by(tokens[-1])["scope"].split())
        assert asked <= auditors if role else asked > auditors
        assert not role or all(set(said_by(each)["scope"].split()) <= auditors for each in tokens[before:])


@pytest.mark.parametrize("away", [False, True])
async def test_a_logout_that_did_not_happen_is_told(world: World, away: bool) -> None:
    async with chromium() as (context, _):
        page = await context.new_page()
        await log_in(world, page, "olga")

        async def fail(route: Route) -> None:
            await (route.abort() if away else route.fulfill(status=503, body="{}"))

        await context.route("**/oauth/logout", fail)
        shown: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def read(dialog: Dialog) -> None:
            await dialog.accept()  # or the click that brought it would wait for that
            shown.set_result(dialog.message)

        page.once("dialog", read)
        await page.get_by_role("button", name="Log out").click()
        assert await asyncio.wait_for(shown, 10) == "You are still logged in: the gateway did not do it. Try again."
        assert SESSION_COOKIE in {cookie.get("name") for cookie in await context.cookies()}
        await context.unroute("**/oauth/logout")
        await page.get_by_role("button", name="Log out").click()
        await page.wait_for_selector("#login")
        assert SESSION_COOKIE not in {cookie.get("name") for cookie in await context.cookies()}
