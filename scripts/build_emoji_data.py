"""Fetch the eight openly licensed emoji sets and render the taxonomy's objects in every style.

    python scripts/build_emoji_data.py            # 1 minute; writes data/emoji/, which is not in git

Needs `npm` on the PATH (only `npm pack` is used) and resvg-py. Leaves, under data/emoji/: `packages/` the pinned
archives, `<style>/<object>.png` 128 px RGBA, `LICENCES.md`, and `sheet.png`, a contact sheet to look at. A second call
renders only what is missing.
"""

import argparse
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import resvg_py
import yaml
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
TAXONOMY = ROOT / "advanchor" / "assets" / "taxonomy.yaml"
PIXELS = 128


def fetch(package: str, version: str, folder: Path) -> Path:
    """Return the archive of `package@version`, downloaded by npm unless it is already in `folder`."""
    archive = folder / f"{package.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(
                ["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True, stdout=subprocess.DEVNULL
            )
        except FileNotFoundError:
            sys.exit("npm was not found: install Node.js (only `npm pack` is used) and run this again.")
        except subprocess.CalledProcessError:
            sys.exit(
                f"npm could not fetch {package}@{version}: check the network and npm's registry setting, "
                "then run this again."
            )
    return archive


def read_json(archive: Path, name: str) -> dict:
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"package/{name}")
        assert member is not None
        return json.load(member)


def svg(icons: dict, name: str) -> str:
    """The icon as a standalone SVG document; `currentColor` becomes black."""
    icon = icons["icons"].get(name)
    if icon is None:  # an alias: the same drawing under another name
        alias = icons["aliases"][name]
        if set(alias) - {"parent"}:
            raise ValueError(f"alias {name} is transformed ({alias}); name its parent in the taxonomy instead")
        icon = icons["icons"][alias["parent"]]
    width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
    left, top = icon.get("left", 0), icon.get("top", 0)
    body = icon["body"].replace("currentColor", "#000000")
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{left} {top} {width} {height}">{body}</svg>'


def sheet(images: list[list[Image.Image]], columns: list[str], rows: list[str], cell: int = 40) -> Image.Image:
    """One row per object, one column per style, on white."""
    page = Image.new("RGB", (90 + cell * len(columns), 14 + cell * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    for c, name in enumerate(columns):
        draw.text((92 + c * cell, 1), name[:7], fill="black")
    for r, name in enumerate(rows):
        draw.text((2, 14 + r * cell + cell // 3), name, fill="black")
        for c in range(len(columns)):
            small = images[r][c].resize((cell - 4, cell - 4), Image.Resampling.LANCZOS)
            page.paste(small, (92 + c * cell, 16 + r * cell), small)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "emoji")
    out = parser.parse_args().out
    taxonomy = yaml.safe_load(TAXONOMY.read_text())
    licences = ["# Licences of the rendered images", ""]
    for style, source in taxonomy["styles"].items():
        archive = fetch(source["package"], source["version"], out / "packages")
        icons, info = read_json(archive, "icons.json"), read_json(archive, "info.json")
        if info["license"]["spdx"] != source["licence"]:
            sys.exit(
                f"{source['package']} is now licensed {info['license']['spdx']}, not {source['licence']}: "
                "correct the taxonomy or drop the style."
            )
        licences.append(
            f"- {style}: {info['name']}, {info['author']['name']} ({info['author']['url']}), "
            f"{info['license']['title']}, {info['license']['url']}"
        )
        (out / style).mkdir(parents=True, exist_ok=True)
        for name, entry in taxonomy["objects"].items():
            target = out / style / f"{name.replace(' ', '_')}.png"
            if target.exists():
                continue
            png = bytes(resvg_py.svg_to_bytes(svg_string=svg(icons, entry["icon"]), width=PIXELS, height=PIXELS))
            image = Image.open(io.BytesIO(png)).convert("RGBA")
            canvas = Image.new("RGBA", (PIXELS, PIXELS), (255, 255, 255, 0))
            canvas.paste(image, ((PIXELS - image.width) // 2, (PIXELS - image.height) // 2))
            canvas.save(target.with_suffix(".part"), format="PNG")
            target.with_suffix(".part").replace(target)
        print(f"{style}: {len(list((out / style).glob('*.png')))} images", flush=True)
    (out / "LICENCES.md").write_text("\n".join(licences) + "\n")
    objects, styles = list(taxonomy["objects"]), list(taxonomy["styles"])
    images = [[Image.open(out / s / f"{o.replace(' ', '_')}.png") for s in styles] for o in objects]
    halves = [sheet(images[i : i + 49], styles, objects[i : i + 49]) for i in (0, 49)]
    page = Image.new("RGB", (halves[0].width * 2, halves[0].height), "white")
    page.paste(halves[0], (0, 0))
    page.paste(halves[1], (halves[0].width, 0))
    page.save(out / "sheet.png")
    print(f"wrote {len(objects) * len(styles)} images and {out / 'sheet.png'}")


if __name__ == "__main__":
    main()
