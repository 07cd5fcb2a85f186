"""The process that talks to a hub: `python -m finetune_trainer.sources.hub_process`, started by `hub_client`.

It reads one JSON request per line and answers each with one JSON line. It is a separate process because the hub's
client decides at import whether it is online, and everything else stays offline.
"""

import base64
import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

from finetune_trainer.network import patience

_PARTIAL_CONTENT = 206
# The answers that a hub gives while it is overloaded or restarted.
_LATER = frozenset({0, 408, 429})


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to one request, or {"error": kind, "detail": ...}; see `hub_client.Fault` for the kinds."""
    from huggingface_hub import errors

    try:
        return _ACTIONS[request["action"]](request)
    except (errors.GatedRepoError, errors.DisabledRepoError) as error:
        return {"error": "denied", "detail": type(error).__name__}
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        return {"error": "missing", "detail": type(error).__name__}
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        kinds = {401: "denied", 403: "denied", 404: "missing"}
        later = status in _LATER or status >= 500
        return {"error": kinds.get(status, "unavailable" if later else "refused"), "detail": f"HTTP {status}"}
    except Exception as error:  # noqa: BLE001 - each HTTP client has its own exceptions; all mean that there is no answer
        # Another certificate, or more disk space, will not come by itself.
        final = "CERTIFICATE_VERIFY_FAILED" in str(error) or getattr(error, "errno", None) == errno.ENOSPC
        return {
            "error": "refused" if final else "unavailable",
            "detail": type(error).__name__,
            "unknownName": patience.is_unknown_name(error),
        }


def _resolve(request: dict[str, Any]) -> dict[str, Any]:
    from huggingface_hub import HfApi

    info = HfApi(token=request["token"]).repo_info(
        request["repository"],
        revision=request["revision"],
        repo_type=request["kind"],
        files_metadata=True,
        timeout=patience.ANSWER,
    )
    return {
        "commit": info.sha,
        "files": [
            {"path": f.rfilename, "sizeBytes": f.size or 0, "identity": f.lfs.sha256 if f.lfs else f.blob_id or ""}
            for f in info.siblings or []
        ],
    }


def _file(request: dict[str, Any]) -> dict[str, Any]:
    """Resolve the revision for one file: a dataset repository may have too many files to list."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(request["repository"], request["path"], repo_type=request["kind"], revision=request["revision"])
    found = get_hf_file_metadata(url, token=request["token"], timeout=patience.ANSWER)
    return {"commit": found.commit_hash or request["revision"], "sizeBytes": found.size}


def _download(request: dict[str, Any]) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    for path in request["paths"]:
        hf_hub_download(
            request["repository"],
            path,
            repo_type=request["kind"],
            revision=request["commit"],
            local_dir=request["folder"],
            token=request["token"],
        )
    return {}


def _ranges(request: dict[str, Any]) -> dict[str, Any]:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(request["repository"], request["path"], repo_type=request["kind"], revision=request["commit"])
    found = []
    for start, length in request["ranges"]:
        headers = build_hf_headers(token=request["token"]) | {"Range": f"bytes={start}-{start + length - 1}"}
        with get_session().stream(
            "GET", url, headers=headers, follow_redirects=True, timeout=2 * patience.ANSWER
        ) as response:
            hf_raise_for_status(response)
            if response.status_code != _PARTIAL_CONTENT:  # the whole file would follow
                return {"error": "refused", "detail": "it does not support range requests"}
            found.append(base64.b64encode(response.read()).decode())
    return {"ranges": found}


_ACTIONS = {"resolve": _resolve, "file": _file, "download": _download, "ranges": _ranges}


def _token(file: str | None) -> str | bool:
    """Return the mounted token, or the laptop user's; False keeps the client from looking for one."""
    if file:
        return Path(file).read_text(encoding="utf-8").strip()
    return os.environ.get("HF_TOKEN") or False


def main() -> None:
    """Serve until stdin ends, as it does when the parent ends."""
    # Output of libraries goes to the log, not between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        token_file = request.pop("tokenFile")
        request["token"] = _token(token_file)
        answers.write(json.dumps(answer(request)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
