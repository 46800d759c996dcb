"""What a worker logs and prints, seen from the other end of its sockets and pipes."""

from __future__ import annotations

import array
import contextlib
import fcntl
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.frames import FrameDecoder, Need
from ipc.messages import Decoder, Log
from supervisor.child.logs import SHARED_FRAME_BYTES, LogForwarder

ROOT = Path(__file__).resolve().parents[2]

# Long enough for a machine that does ten other things; only reached by a failure.
PATIENCE = 60.0


class Listener:
    """The supervisor's end of a log socket, read as a test wants it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.frame_sizes: list[int] = []
        self._frames = FrameDecoder()
        self._decoder: Decoder[Log] = Decoder(Log)
        sock.settimeout(PATIENCE)

    def read(self) -> list[Log]:
        """Return the records that come until the other end is closed."""
        logs: list[Log] = []
        while True:
            frame = self._frames.next_frame()
            if frame is Need.NOTHING:
                return logs
            if isinstance(frame, Need):
                self._frames.feed(self.sock.recv(65536))
                continue
            self.frame_sizes.append(len(frame.payload))
            logs.append(self._decoder.decode(frame.payload))

    def wait_full(self) -> None:
        """Wait until a writer at the other end has to wait."""
        # Full is when the flood goes on and nothing more arrives, a hundred looks
        # long. Looked at too early, the test is weaker, and still right.
        deadline = time.monotonic() + PATIENCE
        before, same = -1, 0
        while same < 100:
            assert time.monotonic() < deadline
            count = array.array("i", [0])
            fcntl.ioctl(self.sock, termios.FIONREAD, count)
            same = same + 1 if count[0] == before > 0 else 0
            before = count[0]
            select.select([], [], [], 0.001)  # let the other process have the CPU


class Worker:
    """A program that has called ``install``, in a process of its own."""

    def __init__(self, program: str, prelude: str = "") -> None:
        near, far = socket.socketpair()
        lines = [
            "import logging, os, signal, socket, sys, threading",
            prelude,
            "from supervisor.child import logs",
            "forwarder = logs.install('DEBUG')",
            f"forwarder.connect(socket.socket(fileno={far.fileno()}), dict)",
            textwrap.dedent(program),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-c", "\n".join(lines)],
            pass_fds=[far.fileno()],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        far.close()
        self.listener = Listener(near)

    def finish(self) -> tuple[list[Log], str, str]:
        """Read all that it logs, wait for its end; return the records and what it printed."""
        logs = self.listener.read()
        stdout, stderr = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, stderr
        return logs, stdout, stderr

    def close(self) -> None:
        self.listener.sock.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def worker(program: str, prelude: str = "") -> Iterator[Worker]:
    running = Worker(program, prelude)
    try:
        yield running
    finally:
        running.close()


def run(program: str, prelude: str = "") -> list[Log]:
    """Return what *program* logs. It must print nothing."""
    with worker(program, prelude) as running:
        logs, stdout, stderr = running.finish()
    assert (stdout, stderr) == ("", "")
    return logs


def record_of(message: object, *args: object, **attributes: object) -> logging.LogRecord:
    record = logging.LogRecord("app", logging.INFO, "/src/app.py", 7, message, args, None, "f")
    vars(record).update(attributes)
    return record


# ── how it is sent ───────────────────────────────────────────────────────────


def test_a_flood_waits_for_the_reader_and_all_of_it_arrives_in_order() -> None:
    program = """
        log = logging.getLogger("flood")
        for i in range(10_000):
            log.info("line %d", i)
        forwarder.close()
    """
    with worker(program) as running:
        running.listener.wait_full()
        assert running.process.poll() is None
        logs, *_ = running.finish()
    assert [log.message for log in logs] == [f"line {i}" for i in range(10_000)]


def test_many_threads_share_the_socket_and_no_record_is_torn() -> None:
    near, far = socket.socketpair()
    with near:
        forwarder = LogForwarder("INFO")
        forwarder.connect(far, dict)

        def flood(number: int) -> None:
            for i in range(300):
                forwarder.forward(record_of(f"{number} {i} {'x' * 5000}"))

        threads = [threading.Thread(target=flood, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()

        def close_after_them() -> None:
            for thread in threads:
                thread.join()
            forwarder.close()

        closer = threading.Thread(target=close_after_them)
        closer.start()
        logs = Listener(near).read()
        closer.join()
    for number in range(4):
        mine = [log.message.split()[1] for log in logs if log.message.startswith(f"{number} ")]
        assert mine == [str(i) for i in range(300)]


def test_a_repr_that_logs_does_not_dead_lock() -> None:
    logs = run("""
        class Chatty:
            def __repr__(self):
                logging.info("inside")
                return "chatty"
        logging.info("outside: %r", Chatty())
    """)
    assert [log.message for log in logs] == ["inside", "outside: chatty"]


def test_a_signal_handler_logs_while_its_thread_waits_in_a_log_call() -> None:
    # 1. the main thread fills the socket and waits in send, holding the lock;
    # 2. the signal's handler runs on top of it and logs; 3. we begin to read.
    program = """
        signal.signal(signal.SIGUSR1, lambda *_: (logging.info("handler"), print("did", flush=True)))
        for i in range(5000):
            logging.info("line %d", i)
    """
    with worker(program) as running:
        running.listener.wait_full()
        running.process.send_signal(signal.SIGUSR1)
        assert running.process.stdout is not None
        assert running.process.stdout.readline() == "did\n"
        logs, *_ = running.finish()
    messages = [log.message for log in logs]
    assert messages.count("handler") == 1
    assert [m for m in messages if m != "handler"] == [f"line {i}" for i in range(5000)]


def test_a_signal_handler_that_raises_in_the_middle_of_a_frame_breaks_nothing() -> None:
    # The messages are larger than what the kernel queues as one piece, so the
    # full socket holds a part of one. The handler raises a TimeoutError, which is
    # an OSError as those of a broken socket are.
    program = """
        def handler(*_):
            raise TimeoutError("the job's own alarm")
        signal.signal(signal.SIGUSR1, handler)
        done, raised = 0, 0
        while done < 60:
            try:
                logging.info("%d %s", done, "x" * 60_000)
            except TimeoutError:
                raised += 1
                print("raised", flush=True)
            done += 1
        forwarder.close()
    """
    with worker(program) as running:
        assert running.process.stdout is not None
        for _ in range(2):
            running.listener.wait_full()
            running.process.send_signal(signal.SIGUSR1)
            assert running.process.stdout.readline() == "raised\n"
        logs, *_ = running.finish()
    assert [log.message.split()[0] for log in logs] == [str(i) for i in range(60)]
    assert {len(log.message) for log in logs} <= {60_002, 60_003}


def test_fork_in_user_code_while_a_thread_logs_leaves_both_able_to_log() -> None:
    logs = run(
        """
        def flood():
            for i in range(3000):
                logging.info("thread %d %s", i, "x" * 500)
        thread = threading.Thread(target=flood)
        thread.start()
        for i in range(20):
            pid = os.fork()
            if pid == 0:
                logging.info("child %d %s", i, "y" * 50_000)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        thread.join()
        """,
        # Python 3.12 and newer warn of exactly what is tried here.
        prelude="import warnings; warnings.simplefilter('ignore', DeprecationWarning)",
    )
    own = [log.message.split()[1] for log in logs if log.message.startswith("thread")]
    children = [log for log in logs if log.message.startswith("child")]
    assert own == [str(i) for i in range(3000)]
    assert [log.message.split()[1] for log in children] == [str(i) for i in range(20)]
    assert len({log.fields["child_pid"] for log in children}) == 20


def test_after_a_fork_frames_are_small_enough_to_be_queued_whole() -> None:
    program = """
        if os.fork() == 0:
            for i in range(200):
                logging.info("child %s", "x" * 60_000)
            os._exit(0)
        for i in range(200):
            logging.info("parent %s", "x" * 60_000)
        os.wait()
    """
    with worker(program) as running:
        logs, *_ = running.finish()
        assert max(running.listener.frame_sizes) <= SHARED_FRAME_BYTES
    assert len(logs) == 400


def test_once_the_supervisor_is_gone_log_calls_return_at_once() -> None:
    near, far = socket.socketpair()
    forwarder = LogForwarder("INFO")
    forwarder.connect(far, dict)
    near.close()
    for _ in range(1000):
        forwarder.forward(record_of("x" * 10_000))
    forwarder.close()
    forwarder.close()
    forwarder.forward(record_of("late"))


# ── installing ───────────────────────────────────────────────────────────────


def test_root_handlers_that_came_along_are_replaced_and_the_level_holds() -> None:
    logs = run(
        """
        named = logging.getLogger("named")
        named.debug("d1")
        forwarder.set_level("warning")
        named.info("i"); named.warning("w")
        loud.info("louder than the level"); quiet.warning("more silent by its own wish")
        forwarder.set_level("DEBUG")
        named.debug("d2")
        """,
        prelude="""
logging.basicConfig(level="ERROR")
loud = logging.getLogger("loud"); loud.setLevel("DEBUG")
quiet = logging.getLogger("quiet"); quiet.setLevel("ERROR")
""",
    )
    assert [log.message for log in logs] == ["d1", "w", "d2"]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="'LOUD' is no log level"):
        LogForwarder("LOUD")


LOGURU = """
    logger.bind(user="u").info("hello {}", "you")
    try:
        1 / 0
    except ZeroDivisionError:
        logger.exception("failed")
    logger.trace("below the level")
"""


def _assert_loguru_arrived(logs: list[Log]) -> None:
    hello, failed = logs
    assert (hello.message, hello.logger, hello.level) == ("hello you", "__main__", 20)
    assert (hello.fields, hello.function, hello.thread) == ({"user": "u"}, "<module>", "MainThread")
    assert hello.path == "<string>"
    assert failed.exception is not None
    assert failed.exception.endswith("ZeroDivisionError: division by zero")


def test_loguru_imported_before_is_forwarded_and_prints_nothing() -> None:
    _assert_loguru_arrived(run(LOGURU, prelude="from loguru import logger"))


def test_loguru_imported_later_is_forwarded_and_prints_nothing() -> None:
    imported = """
    assert "loguru" not in sys.modules
    import loguru
    from loguru import logger
    assert "_Loader" not in repr(loguru.__spec__.loader) + repr(loguru.__loader__)
    """
    _assert_loguru_arrived(run(imported + LOGURU))


def test_installing_does_not_import_loguru_or_asyncio() -> None:
    logs = run("""
        logging.info([name for name in ("loguru", "asyncio", "psutil") if name in sys.modules])
    """)
    assert [log.message for log in logs] == ["[]"]


def test_what_the_user_added_to_loguru_stays_unless_it_writes_to_the_terminal() -> None:
    logs = run(
        """
        logger.info("once")
        assert seen == ["once\\n"]
        """,
        prelude="""
from loguru import logger
seen = []
logger.remove()
logger.add(sys.stderr, format="{message}")
logger.add(seen.append, format="{message}")
""",
    )
    assert [log.message for log in logs] == ["once"]


def test_a_second_forwarder_takes_loguru_over_from_a_closed_one() -> None:
    logs = run(
        """
        logger.info("to the worker's")
        assert len(logger._core.handlers) == 1  # a second one would cost 2.5 ms
        """,
        prelude="""
from loguru import logger
from supervisor.child import logs
first, near = socket.socketpair()
before = logs.install("DEBUG")
before.connect(first, dict)
before.close()
logger.info("to nobody")
assert near.recv(1) == b""
""",
    )
    assert [log.message for log in logs] == ["to the worker's"]


def test_a_forwarder_goes_from_one_socket_to_the_next() -> None:
    # As it goes in a worker: the fork server connected it to its own, before the fork.
    logs = run(
        """
        logging.info("to the first")
        logger.info("by loguru")
        assert len(logger._core.handlers) == 1
        forwarder.disconnect()
        logging.info("to nobody")
        near, second = socket.socketpair()
        forwarder.connect(second, lambda: {"job": "J-1"})
        logging.info("to the second")
        forwarder.disconnect()
        frames = FrameDecoder()
        while data := near.recv(65536):
            frames.feed(data)
        log = Decoder(Log).decode(frames.next_frame().payload)
        assert (log.message, log.fields) == ("to the second", {"job": "J-1"}), log
        assert frames.buffered == 0
        """,
        prelude="""
from loguru import logger
from ipc.frames import FrameDecoder
from ipc.messages import Decoder, Log
""",
    )
    assert [log.message for log in logs] == ["to the first", "by loguru"]


def test_what_user_code_added_to_logging_is_taken_off_again() -> None:
    logs = run(
        """
        logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))
        logging.getLogger().setLevel("ERROR")
        number = logger.add(sys.stdout)
        forwarder.attach()
        logging.info("once")
        logger.info("once as well")
        assert len(logging.getLogger().handlers) == 1
        assert len(logger._core.handlers) == 1
        """,
        prelude="from loguru import logger",
    )
    assert [log.message for log in logs] == ["once", "once as well"]


def test_loguru_follows_a_change_of_level() -> None:
    logs = run(
        """
        logger.debug("one")
        forwarder.set_level("ERROR")
        logger.info("two"); logger.error("three")
        """,
        prelude="from loguru import logger",
    )
    assert [log.message for log in logs] == ["one", "three"]


def test_user_code_may_remove_all_sinks_of_loguru() -> None:
    logs = run(
        """
        logger.remove()
        logger.info("nowhere")
        forwarder.close()
        """,
        prelude="from loguru import logger",
    )
    assert logs == []


# ── what is printed ──────────────────────────────────────────────────────────


def test_what_is_printed_goes_to_the_descriptors_line_by_line() -> None:
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    program = f"""
import os, subprocess, sys
from supervisor.child.logs import flush_output, redirect_output
print("before", end="")
redirect_output({out_end}, {err_end})
print("printed: ä \\udc80")
os.write(1, b"by descriptor\\n")
subprocess.run(["sh", "-c", "echo by a grandchild >&2"])
print("to stderr", file=sys.__stderr__)
print("no newline", end="")
flush_output()
sys.stdout.close()
flush_output()
print("last words", file=sys.stderr)
os._exit(0)
"""
    with open(out, "rb") as stdout, open(err, "rb") as stderr:
        done = subprocess.run(
            [sys.executable, "-c", program],
            pass_fds=[out_end, err_end],
            cwd=ROOT,
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        )
        os.close(out_end)
        os.close(err_end)
        assert stdout.read().decode() == "printed: ä \\udc80\nby descriptor\nno newline"
        assert stderr.read().decode() == "by a grandchild\nto stderr\nlast words\n"
    assert (done.stdout, done.stderr) == (b"before", b"")
