"""A headless Chromium, driven through selenium, with a profile of its own that goes with it."""

import base64
import contextlib
import shutil
import tempfile
from pathlib import Path

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip


def missing():
    """Return what is not there of browser and driver; an empty text where both are."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if not absent:
        return ""
    return f"{' and '.join(absent)} not found; Debian's packages are chromium and chromium-driver"


@contextlib.contextmanager
def running():
    """Yield a browser, and end it."""
    from selenium import webdriver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield Browser(driver)
        finally:
            driver.quit()


class Browser:
    """What the tests ask of the browser."""

    def __init__(self, driver):
        self.driver = driver
        self.run = driver.execute_script

    def open(self, path: Path, width=1280, height=900, *, scale=1, media="", scheme="light",
             scripts=True):  # fmt: skip
        """Load a file in a window of a size, on a medium, with or without its scripts."""
        command = self.driver.execute_cdp_cmd
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        command("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        command("Emulation.setEmulatedMedia", {"media": media, "features": features})
        command("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        self.driver.get(path.as_uri())

    def complaints(self):
        """Return what the console says, warnings included."""
        return self.driver.get_log("browser")

    def press(self, *keys):
        """Press keys, whatever has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def click(self, name):
        self.driver.find_element("id", name).click()

    def status(self):
        return self.driver.find_element("id", "status").text

    def visible(self, selector):
        """Return how many elements are shown."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter((each) => each.checkVisibility({visibilityProperty: true})).length",
            selector,
        )

    def pdf(self):
        """Return the page as it is printed."""
        printed = self.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
        return base64.b64decode(printed["data"])

    def picture(self, path):
        """Save what the window shows."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        Path(path).write_bytes(base64.b64decode(shot["data"]))
