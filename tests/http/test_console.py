"""GraphiQL in real Chromium: log in, run an example, see the answer."""

import contextlib
import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.async_api import TimeoutError as TooSlow
from playwright.async_api import async_playwright

from gateway.access.scopes import CEILING
from gateway.http.guard import missing
from tests.access.test_consent import BACK, client_with_page
from tests.access.test_oauth import authorization
from tests.world import OPERATOR_PASSWORD, World, engine

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
