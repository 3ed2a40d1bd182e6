"""Make `src/small_doge/webui/static/vendor` from packages of npm at pinned versions: what the page imports.

    python tools/vendor.py

Files are taken as they are, but for three things: bare imports become relative ones, so that the page needs no import map
and its Content-Security-Policy may be strict; a script for any module system is wrapped as an ES module; and the names of
source maps, which are not taken along, are left out. `vendor.json` says where each file is from, and its hash.
"""

import gzip
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path


FOLDER = Path(__file__).parents[1] / "src" / "small_doge" / "webui" / "static" / "vendor"
LISTING = "vendor.json"
# Vendored file of each package that another imports by its name.
IMPORTS = {"preact": "preact.mjs"}
WRAP = ("const module = { exports: {} };\nconst exports = module.exports;\n", "\nexport default module.exports;\n")


@dataclass
class Package:
    """A package of npm.

    Attributes:
        name: its name there.
        version: the version that is taken.
        license: as SPDX writes it.
        files: vendored name by the name in the package; * stands for any part of a name, in both.
        licenses: files of the package with its licence; if none, the text in `licenses` is kept by hand.
    """

    name: str
    version: str
    license: str
    files: dict[str, str]
    licenses: tuple[str, ...] = ("LICENSE",)
    wrapped: tuple[str, ...] = field(default=())

    @property
    def slug(self) -> str:
        """Return the name as that of a file."""
        return self.name.lstrip("@").replace("/", "-")


PACKAGES = [
    Package("preact", "11.2.0", "MIT", {"dist/preact.mjs": "preact.mjs", "hooks/dist/hooks.mjs": "preact-hooks.mjs"}),
    Package("htm", "3.1.1", "Apache-2.0", {"dist/htm.mjs": "htm.mjs"}),
    Package("marked", "18.2.1", "MIT", {"lib/marked.esm.js": "marked.mjs"}),
    Package(
        "dompurify",
        "3.4.18",
        "MPL-2.0 OR Apache-2.0",
        {"dist/purify.min.js": "purify.mjs"},
        wrapped=("dist/purify.min.js",),
    ),
    Package(
        "@highlightjs/cdn-assets",
        "11.12.0",
        "BSD-3-Clause",
        {"es/highlight.min.js": "highlight.mjs"},
    ),
    Package(
        "katex",
        "0.19.1",
        "MIT",
        {
            "dist/katex.min.js": "katex/katex.mjs",
            "dist/katex.min.css": "katex/katex.min.css",
            "dist/fonts/*.woff2": "katex/fonts/*.woff2",
        },
        wrapped=("dist/katex.min.js",),
    ),
    Package("@huggingface/jinja", "0.5.11", "MIT", {"dist/index.js": "jinja.mjs"}),
    Package("@huggingface/tokenizers", "0.2.0", "Apache-2.0", {"dist/tokenizers.min.mjs": "tokenizers.mjs"}),
    Package(
        "onnxruntime-web",
        "1.30.0",
        "MIT",
        {
            # A worker that it starts loads the bundle by this name.
            "dist/ort.wasm.bundle.min.mjs": "ort/ort.wasm.bundle.min.mjs",
            # Packed: 3.7 MB in place of 14.2, which pages unpack themselves, since simple file servers do not pack.
            "dist/ort-wasm-simd-threaded.wasm": "ort/ort-wasm-simd-threaded.wasm.gz",
        },
        licenses=(),
    ),
]


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def fetch(package: Package, folder: Path) -> dict[str, bytes]:
    """Fetch a package from npm; return its files by name."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{package.name}@{package.version}"]
    name = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
    with tarfile.open(folder / Path(name).name) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        return {member.name.partition("/")[2]: archive.extractfile(member).read() for member in members}


def choose(package: Package, files: dict[str, bytes]) -> dict[str, tuple[str, bytes]]:
    """Return name in the package and content of each vendored file, by its vendored name."""
    chosen = {}
    for pattern, target in package.files.items():
        regex = re.compile(re.escape(pattern).replace(r"\*", "([^/]*)"))
        found = [match for match in map(regex.fullmatch, sorted(files)) if match]
        if not found:
            sys.exit(f"{package.name} {package.version} has no {pattern}")
        for match in found:
            name = target.replace("*", match[1]) if match.groups() else target
            chosen[name] = (match[0], adapt(match[0] in package.wrapped, name, files[match[0]]))
    return chosen


def adapt(is_wrapped: bool, name: str, content: bytes) -> bytes:
    """Change a file to what the page can use."""
    if name.endswith(".gz"):
        # Another zlib may pack in other bytes.
        old = FOLDER / name
        same = old.is_file() and gzip.decompress(old.read_bytes()) == content
        return old.read_bytes() if same else gzip.compress(content, 9, mtime=0)
    if name.endswith(".woff2"):
        return content
    text = re.sub(r"\n?/[/*]# sourceMappingURL=\S+( \*/)?\s*$", "\n", content.decode())
    if name.endswith(".css"):  # other formats of fonts are not taken along, and every browser since 2018 has woff2
        text = re.sub(r',url\(fonts/[^)]*\.(?:woff|ttf)\) format\("(?:woff|truetype)"\)', "", text)
    for package, file in IMPORTS.items():
        text = re.sub(rf'(\bfrom\s*|\bimport\s*)"{re.escape(package)}"', rf'\1"./{file}"', text)
    return (text.join(WRAP) if is_wrapped else text).encode()


def collect() -> tuple[dict[str, bytes], list[dict]]:
    """Collect all files of the folder, and what `vendor.json` says of them."""
    contents, listing = {}, []
    for package in PACKAGES:
        with tempfile.TemporaryDirectory() as folder:
            files = fetch(package, Path(folder))
        notice = f"licenses/{package.slug}.txt"
        texts = [files[name].decode() for name in package.licenses]
        chosen = choose(package, files)
        contents[notice] = "\n".join(texts).encode() if texts else (FOLDER / notice).read_bytes()
        contents.update({name: content for name, (_, content) in chosen.items()})
        entry = {"package": package.name, "version": package.version, "license": package.license}
        entry["license_file"] = {"file": notice, "sha256": digest(contents[notice])}
        entry["files"] = [
            {"file": name, "from": source, "sha256": digest(content)} for name, (source, content) in chosen.items()
        ]
        listing.append(entry)
    return contents, listing


def check_same_versions(listing: list[dict]) -> None:
    """Stop where a version that was taken before has changed: the registry serves something else under its name."""
    known = FOLDER / LISTING
    for old in json.loads(known.read_text(encoding="utf-8")) if known.is_file() else []:
        for new in listing:
            if (old["package"], old["version"]) == (new["package"], new["version"]):
                hashes = {file["file"]: file["sha256"] for file in old["files"]}
                changed = [f["file"] for f in new["files"] if hashes.get(f["file"], f["sha256"]) != f["sha256"]]
                if changed:
                    sys.exit(
                        f"{old['package']} {old['version']} has changed: {', '.join(changed)}; delete {known} if meant"
                    )


def main() -> None:
    """Make the folder anew."""
    contents, listing = collect()
    check_same_versions(listing)
    for file in [path for path in FOLDER.rglob("*") if path.is_file()]:
        file.unlink()
    for name, content in contents.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (FOLDER / LISTING).write_text(json.dumps(listing, indent=2) + "\n", encoding="utf-8")
    print(f"{len(contents)} files, {sum(map(len, contents.values())) / 1e6:.1f} MB in {FOLDER}")


if __name__ == "__main__":
    main()
