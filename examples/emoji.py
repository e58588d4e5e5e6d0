"""Turn npm's emoji pictures into a folder of classes in splits, for docs/figures.md.

    npm pack emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz
    python examples/emoji.py package emoji

Classes are the emoji's categories. An emoji and its variants (skin tones) stand in one split, chosen by a
hash of its name: a tenth test, a twentieth validation.
"""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path


def main(package: Path, out: Path) -> None:
    """Copy the pictures to ``out/SPLIT/CATEGORY``."""
    pictures, count = package / "img" / "google" / "64", 0
    for emoji in json.loads((package / "emoji.json").read_text(encoding="utf-8")):
        if emoji["category"] == "Component":  # skin tones without an emoji
            continue
        share = int(hashlib.sha256(emoji["name"].encode()).hexdigest()[:8], 16) / 2**32
        split = "test" if share < 0.1 else "validation" if share < 0.15 else "train"
        category = re.sub(r"\W+", "-", emoji["category"].lower()).strip("-")
        folder = out / split / category
        folder.mkdir(parents=True, exist_ok=True)
        for one in (emoji, *emoji.get("skin_variations", {}).values()):
            picture = pictures / one["image"]
            if picture.is_file():
                shutil.copyfile(picture, folder / picture.name)
                count += 1
    print(f"{count:,} pictures in {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
