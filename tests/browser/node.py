"""The page's modules without a browser, in Node.js."""

import json
import subprocess
from pathlib import Path


CORE = Path(__file__).parents[2] / "src" / "small_doge" / "webui" / "static" / "core"

# What modules of the page find in a browser.
BROWSER = """
globalThis.matchMedia = () => ({ matches: false, addEventListener() {} });
globalThis.requestAnimationFrame = () => 1;
globalThis.sessionStorage = { getItem: () => null, setItem() {}, removeItem() {} };
globalThis.localStorage = sessionStorage;
globalThis.location = new URL("http://127.0.0.1/");
globalThis.history = { pushState() {}, replaceState() {} };
globalThis.document = { documentElement: { dataset: {} } };
"""


def run(modules, code):
    """Run JavaScript with these modules of the page, by their paths from its core, and give what `found` holds."""
    imports = "".join(
        f"const {Path(name).name} = await import({json.dumps((CORE / f'{name}.mjs').resolve().as_uri())});\n"
        for name in modules
    )
    # The process ends once all is written, and not before: what a pipe does not hold yet would be lost.
    script = f"{BROWSER}{imports}{code}\nprocess.stdout.write(JSON.stringify(found), () => process.exit());"
    done = subprocess.run(["node", "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
