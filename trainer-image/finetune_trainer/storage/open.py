"""Opens the store that a plan or a user names."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from finetune_api.plan import OutputPlan, S3Target
from finetune_trainer.errors import SettingsError
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.storage.s3 import S3Store
from finetune_trainer.storage.store import Store


def open_s3(target: S3Target) -> S3Store:
    """Open a folder in a bucket.

    Raises:
        SettingsError: the URI is not an S3 URI.
        AccessDeniedError: a mounted Secret lacks a key.
    """
    return S3Store(target)


def open_s3_object(target: S3Target) -> tuple[S3Store, str]:
    """Open the folder of the one object that `target.uri` names, and return the object's key in it.

    Raises:
        SettingsError: the URI does not name an object.
        AccessDeniedError: a mounted Secret lacks a key.
    """
    folder, _, key = target.uri.rpartition("/")
    if not key or not urlsplit(folder).netloc:
        raise SettingsError(f'"{target.uri}" does not name an object; write s3://bucket/folder/file.jsonl')
    return S3Store(target.model_copy(update={"uri": folder})), key


def open_output(output: OutputPlan) -> Store:
    """Open the store to which everything is written.

    Raises:
        SettingsError: the plan has no output.
    """
    if output.s3:
        return open_s3(output.s3)
    if output.path:
        return FileStore(Path(output.path))
    raise SettingsError("the plan has no output; set spec.output.s3 or pass --output file:///FOLDER")


def override_output(output: OutputPlan, uri: str) -> OutputPlan:
    """Return the output that the user gave as `--output`; an S3 URI keeps the plan's connection.

    Raises:
        SettingsError: it is neither an S3 nor a file URI.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        target = output.s3.model_copy(update={"uri": uri}) if output.s3 else S3Target(uri=uri)
        return OutputPlan(s3=target)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return OutputPlan(path=unquote(parts.path))
    raise SettingsError(f'"{uri}" is not an output; write file:///FOLDER or s3://BUCKET/FOLDER')
