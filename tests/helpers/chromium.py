"""The headless Chromium in which the tests open pages."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")


def chromium(profile: Path, flags: Sequence[str]) -> Iterator[webdriver.Chrome]:
    """A browser with an empty profile, until the test is over; the test is skipped without one."""
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("no chromium and chromedriver on the path (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # A small /dev/shm, as containers have, would crash it.
    for flag in [*flags, f"--user-data-dir={profile}", "--disable-dev-shm-usage"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    driver.set_script_timeout(300)
    driver.set_page_load_timeout(300)
    try:
        yield driver
    finally:
        driver.quit()
