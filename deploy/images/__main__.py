"""Builds the images: ``python -m deploy.images [NAME...]``. `make images` builds all of them."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from deploy.images.catalogue import IMAGES, TORCH
from deploy.images.context import BUILD, prepare, source
from deploy.images.engine import build, found, size

_ALL: Final = {image.name: image for image in (TORCH, *IMAGES)}


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("make images", description="Build the images from pinned wheels.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(_ALL)}  [default: all]")
    parser.add_argument("--registry", default="ghcr.io/windfall-dev", help="begin of every tag  [%(default)s]")
    parser.add_argument("--base", default="", help="image with Python alone  [that of the Dockerfiles]")
    parser.add_argument("--torch-base", default="", help="image with torch  [one that is built here]")
    parser.add_argument("--slim-base", default="", help="image with Python that torch is put on  [of its Dockerfile]")
    parser.add_argument("--torch", default="torch==2.13.0", help="requirement, or path of a wheel  [%(default)s]")
    parser.add_argument("--python", default="3.11", help="version of the bases' Python  [%(default)s]")
    parser.add_argument("--only-contexts", action="store_true", help="make build/images and build nothing")
    asked = parser.parse_args(words)
    if unknown := [name for name in asked.names if name not in _ALL]:
        return _refused(f"{', '.join(unknown)} is no image. There are {', '.join(_ALL)}", 2)
    wanted = [_ALL[name] for name in asked.names] or list(IMAGES)
    if not asked.torch_base and any(image.torch for image in wanted) and TORCH not in wanted:
        wanted.insert(0, TORCH)
    engine = found()
    if engine is None and not asked.only_contexts:
        return _refused("neither docker, podman nor buildah answers. Install one, or start its daemon", 3)
    try:
        made_from = source()
        prepare(wanted, asked.python, asked.torch, made_from)
        for image in wanted if engine and not asked.only_contexts else ():
            assert engine is not None
            tag = f"{asked.registry}/{image.name}:{made_from.version}"
            bases = {True: asked.torch_base or f"{asked.registry}/{TORCH.name}:{made_from.version}", False: asked.base}
            base = asked.slim_base if image is TORCH else bases[image.torch]
            command = build(
                engine, image.dockerfile, BUILD / image.name, tag, {"BASE": base} if base else {}, made_from
            )
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            print(f"{tag:60} {size(engine, tag):>12}")
    except ValueError as error:
        return _refused(str(error), 2)
    except subprocess.CalledProcessError as error:
        return _refused(f"`{' '.join(map(str, error.cmd))[:200]}` ended with {error.returncode}. See above", 1)
    return 0


def _refused(text: str, code: int) -> int:
    sys.stderr.write(f"images: {text}.\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
