"""Opens a report in headless Chromium: python3 .ci/check_report.py REPORT.html SCREENSHOT_FOLDER

Through ChromeDriver (WebDriver over HTTP; nothing but the standard library). On a phone and on a desktop, in the light and
in the dark: no scrolling sideways, nothing that overlaps or is cut, enough contrast, no request that leaves the file; every
section of the index and every folded part is clicked, and the theme button pressed. Leaves a screenshot of each.
"""
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

report, folder = os.path.abspath(sys.argv[1]), sys.argv[2]
os.makedirs(folder, exist_ok=True)
PORT = 9517
BASE = f"http://127.0.0.1:{PORT}"


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as e:
        sys.exit(f"{method} {path}: {e.read().decode()[:500]}")


CHECKS = """
const problems = [];
const root = document.documentElement;
if (root.scrollWidth > innerWidth + 1) {
  const wide = [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
  problems.push("scrolls sideways: " + root.scrollWidth + " > " + innerWidth + " by " + wide.slice(0, 3).map(e => e.tagName + " " + (e.textContent || "").slice(0, 40)).join("; "));
}
for (const e of document.querySelectorAll("td, th, h1, h2, p, summary, button, figcaption")) {
  if (e.offsetParent !== null && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0) problems.push("cut: " + e.tagName + " " + e.textContent.slice(0, 60));
}
for (const svg of document.querySelectorAll("svg")) {
  if (svg.getClientRects().length === 0) continue;
  const box = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].map(t => [t.textContent.trim(), t.getBoundingClientRect()]).filter(t => t[0]);
  for (const [text, r] of texts) {
    if (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1) problems.push("outside of its plot: " + text);
  }
  for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
    const [a, b] = [texts[i][1], texts[j][1]];
    const w = Math.min(a.right, b.right) - Math.max(a.left, b.left), h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (w > 2 && h > 4) problems.push("overlap in a plot: " + texts[i][0] + " / " + texts[j][0]);
  }
}
const rgb = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length > 3 && m[3] === 0 ? null : m; };
const light = c => { const f = c.slice(0, 3).map(x => (x /= 255) <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c) return c; } return [255, 255, 255]; };
const seen = new Set();
for (const e of document.querySelectorAll("td, th, p, h1, h2, a, code, caption, figcaption, summary, svg text, button")) {
  const style = getComputedStyle(e), ink = rgb(e.tagName === "text" ? style.fill : style.color);
  if (!ink || !e.textContent.trim()) continue;
  const [a, b] = [light(ink), light(ground(e))], ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5 && !seen.has(e.tagName + ink)) { seen.add(e.tagName + ink); problems.push("contrast " + ratio.toFixed(1) + ": " + e.tagName + " " + e.textContent.slice(0, 30)); }
}
const loaded = performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:"));
if (loaded.length) problems.push("loads " + loaded.join(", "));
return problems;
"""

driver = shutil.which("chromedriver") or sys.exit("no chromedriver: apt-get install chromium chromium-driver")
profile = tempfile.mkdtemp()
process = subprocess.Popen([driver, f"--port={PORT}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
failed = []
try:
    for _ in range(100):
        try:
            urllib.request.urlopen(BASE + "/status", timeout=5)
            break
        except OSError:
            time.sleep(0.1)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
    options = {"alwaysMatch": {"goog:chromeOptions": {"binary": shutil.which("chromium"), "args": flags}}}
    session = "/session/" + call("POST", "/session", {"capabilities": options})["sessionId"]

    def cdp(command, **parameters):
        return call("POST", session + "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def script(text):
        return call("POST", session + "/execute/sync", {"script": text, "args": []})

    def screenshot(name):
        # in pieces that can be looked at
        width, height = script("return [document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        for i, top in enumerate(range(0, min(height, 12000), 1600)):
            clip = {"x": 0, "y": top, "width": width, "height": min(1600, height - top), "scale": 1}
            png = cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
            with open(os.path.join(folder, f"{name}-{i + 1}.png"), "wb") as f:
                f.write(base64.b64decode(png))

    for device, width, height, scale in (("phone", 390, 844, 1.5), ("desktop", 1280, 900, 1)):
        for theme in ("light", "dark"):
            name = f"{device}-{theme}"
            cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                mobile=device == "phone")
            cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
            call("POST", session + "/url", {"url": "file://" + report})
            links = script("return [...document.querySelectorAll('nav a')].map(a => { a.click(); return [location.hash, "
                           "!!document.getElementById(decodeURIComponent(location.hash.slice(1)))]; })")
            failed += [f"{name}: the link {h} leads nowhere" for h, ok in links if not ok]
            assert links, "no index"
            found = script(CHECKS)
            screenshot(name)
            opened = script("const s = [...document.querySelectorAll('summary')]; s.forEach(x => x.click()); "
                            "return s.every(x => x.parentElement.open) ? s.length : -1")
            assert opened > 0, "folded parts do not open"
            found += script(CHECKS)
            screenshot(name + "-open")
            before = script("return getComputedStyle(document.body).backgroundColor")
            script("document.getElementById('theme').click()")
            if script("return getComputedStyle(document.body).backgroundColor") == before:
                failed.append(f"{name}: the theme button does nothing")
            failed += [f"{name}: {p}" for p in dict.fromkeys(found)]
    call("DELETE", session)
finally:
    process.terminate()
    process.wait()
    shutil.rmtree(profile, ignore_errors=True)
for line in failed:
    print(line)
print(f"{len(os.listdir(folder))} screenshots in {folder}, {len(failed)} problems")
sys.exit(1 if failed else 0)
