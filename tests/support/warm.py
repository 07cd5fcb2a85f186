"""Processes of the trainer, and of llama.cpp's converters, that need not import anything: forked from one that has.

A new interpreter spends 12 seconds of CPU on importing torch and Unsloth, each process that trains again. Here a server
imports them once for all tests of a worker, and each stage is forked from it, and the processes that train from the
stage: signals, kills and environment are those of separate processes, and nothing leaks from one case to the next.
The server only imports: a thread pool that had worked before the fork would be missing after it.
"""

import atexit
import contextlib
import logging
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from multiprocessing import forkserver, util
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from finetune_trainer.runtime import environment

_context = multiprocessing.get_context("forkserver")
# Whether this is a process of the server's, from which others can be forked.
_forked = False


class Stage:
    """What tests need of subprocess.Popen, of a stage that was forked."""

    def __init__(self, process: Any) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Of the stage, not of what trains for it."""
        found: int = self._process.pid
        return found

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        code: int | None = self._process.exitcode
        return code

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("a stage", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to a stage that may be over."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


@cache
def serve() -> None:
    """Start the server, which imports from then on."""
    _context.set_forkserver_preload(["tests.support.warm_imports"])
    # What libraries leave where they are imported.
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kept = {"FINETUNE_CACHE": str(environment.cache_folder())}
    # Where the server is called; not in that folder, which is gone before it.
    util.get_temp_dir()
    with environment.applied(folder):
        os.environ |= kept
        forkserver.ensure_running()


def start(
    arguments: Sequence[str],
    output: Path,
    variables: Mapping[str, str],
    before: Callable[[], None] | None = None,
) -> Stage:
    """Run the command line, printing to `output`, with this process's environment and `variables`.

    `before`: called first in the new process, to replace parts of the trainer.
    """
    # The process may only start later, and whoever reads must not find what an earlier one printed.
    output.write_bytes(b"")
    return _started(partial(_stage, list(arguments), output, {**os.environ, **variables}, before))


def _started(main: Callable[[], NoReturn]) -> Stage:
    serve()
    process = _context.Process(target=main)
    process.start()
    return Stage(process)


def _stage(
    arguments: list[str], output: Path, variables: dict[str, str], before: Callable[[], None] | None
) -> NoReturn:
    global _forked
    from finetune_trainer import cli
    from finetune_trainer.export.llama_cpp import scripts
    from finetune_trainer.train import launcher

    _forked = True
    _begin(variables)
    log = os.open(output, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    launcher.subprocess = SimpleNamespace(Popen=Worker)  # type: ignore[assignment]
    scripts.subprocess = CONVERTERS  # type: ignore[assignment]
    if before is not None:
        before()
    _end(cli.main, arguments)


class Forked:
    """What the trainer needs of subprocess.Popen, of a process forked from this one that runs `main`."""

    def __init__(self, main: Callable[[], NoReturn]) -> None:
        self.returncode: int | None = None
        self._reaping = threading.Lock()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            main()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, negative for a signal; any thread may wait."""
        while self.returncode is None:
            # Without reaping, so that the process can be signalled until its code is known.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            with self._reaping:
                if self.returncode is None:
                    self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with self._reaping:
            if self.returncode is None:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to a process that may be over."""
        with self._reaping:
            if self.returncode is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Worker(Forked):
    """Of the launcher: a process that trains."""

    def __init__(self, command: Sequence[str], pass_fds: Sequence[int], env: Mapping[str, str]) -> None:
        """`command`: the worker's, whose last word is its order."""
        super().__init__(lambda: _worker(list(command[-1:]), env))


def _worker(arguments: list[str], variables: Mapping[str, str]) -> NoReturn:
    from finetune_trainer.train import worker

    _begin(variables)
    _end(worker.main, arguments)


class Converter:
    """What `export.llama_cpp.scripts` needs of subprocess.Popen, of a converter."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path, **_: Any) -> None:
        """`command`: Python, the program and its arguments; all that it prints comes from `stdout`."""
        reading, writing = multiprocessing.Pipe(duplex=False)
        main = partial(_convert, list(command[1:]), dict(env), cwd, writing)
        self._process: Forked | Stage = Forked(main) if _forked else _started(main)
        writing.close()
        self.stdout = os.fdopen(os.dup(reading.fileno()), encoding="utf-8", errors="replace")
        reading.close()

    def wait(self) -> int:
        """Return the exit code."""
        return self._process.wait()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def _convert(command: list[str], variables: dict[str, str], folder: Path, output: Any) -> NoReturn:
    _begin(variables)
    if _forked:
        import torch

        # The stage may have worked with torch's thread pool, whose threads are not in this process.
        torch.set_num_threads(1)
    os.chdir(folder)
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    logging.getLogger().handlers.clear()
    sys.argv[:] = command
    sys.path[:0] = [str(Path(command[0]).parent), variables["PYTHONPATH"]]
    # Its own, which comes first on that path.
    for name in [name for name in sys.modules if name.partition(".")[0] == "gguf"]:
        del sys.modules[name]

    def main(arguments: Sequence[str]) -> int:
        runpy.run_path(arguments[0], run_name="__main__")
        return 0

    _end(main, command)


CONVERTERS = SimpleNamespace(Popen=Converter, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)


def _begin(variables: Mapping[str, str]) -> None:
    """Be as a new interpreter with these environment variables."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(variables)


def _end(main: Callable[[Sequence[str]], int], arguments: list[str]) -> NoReturn:
    """End this process with what `main` returns, whatever its caller would do then."""
    code = 1
    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last resort of a process
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError, OSError):
                stream.flush()
        os._exit(code)
