"""GraphiQL in real Chromium: log in, run an example, see the answer."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from playwright.async_api import TimeoutError as TooSlow
from playwright.async_api import async_playwright

from tests.world import OPERATOR_PASSWORD, World

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
            await page.click("button")
            assert await page.text_content("[role=alert]") == "The login name, the password or the one-time code is wrong."
            await page.screenshot(path=tmp_path / "login.png")
            await page.fill("#password", OPERATOR_PASSWORD)
            await page.fill("#code", world.code_of("olga"))
            await page.click("button")
            run = page.get_by_role("button", name="Execute query (Ctrl-Enter)")
            await run.wait_for()
            for name in ("Partners", "Month", "Member", "Rate", "Integrity"):
                await page.get_by_role("tab", name=name).wait_for(timeout=5_000)
            await page.get_by_role("tab", name="Partners").click()
            result = page.locator(".result-window", has_text="grocer")
            for _ in range(TRIES):  # a click while the tab is still being filled runs nothing
                await run.click()
                with contextlib.suppress(TooSlow):
                    await result.wait_for(timeout=5_000)
                    break
            assert "grocer" in await page.locator(".result-window").inner_text()
            await page.screenshot(path=tmp_path / "graphiql.png")
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
