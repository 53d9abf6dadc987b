"""Real brokers for tests: each on a port of its own, with its files in a folder of its own."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

WITHIN = 60.0

# Where Debian has what its wrapper starts under another user, and where other systems have it.
RABBIT = (
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/usr/local/sbin/rabbitmq-server",
    "/opt/homebrew/sbin/rabbitmq-server",
)


def free_port() -> int:
    """Return a port that is free, and below those that the system gives to clients.

    While a server is down, a client that connects to such a port may be given that very port itself.
    """
    while True:
        port = random.randrange(12_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """A process that listens on a port, and can be killed and started again with what it has kept."""

    word = ""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str | None:
        """Return why there is no such server here, if there is none."""
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
            )
        deadline = time.monotonic() + WITHIN
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-3000:])
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut would."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(WITHIN)

    def stop(self) -> None:
        self.kill()

    def sync(self) -> None:
        """Have everything written that it knows and writes only now and then."""


class RedisServer(Server):
    """redis-server, which writes everything to its append-only file."""

    word = "redis"

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self.options = options
        self.url = f"redis://127.0.0.1:{self.port}/0"

    @staticmethod
    def missing() -> str | None:
        return None if shutil.which("redis-server") else "redis-server is not installed"

    def command(self) -> list[str]:
        fixed = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--daemonize", "no"]
        where = ["--port", str(self.port), "--dir", str(self.folder)]
        return ["redis-server", *where, *fixed, *self.options]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class RabbitServer(Server):
    """rabbitmq-server, as a node that knows no other."""

    word = "rabbitmq"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names, self.distribution = free_port(), free_port()
        self._epmd: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"
        (folder / "rabbitmq.conf").write_text("")
        (folder / "plugins").write_text("[].")

    @staticmethod
    def binary() -> str | None:
        return next((path for path in RABBIT if Path(path).exists()), None)

    @staticmethod
    def missing() -> str | None:
        return None if RabbitServer.binary() else "rabbitmq-server is not installed"

    def command(self) -> list[str]:
        binary = self.binary()
        assert binary is not None
        return [binary]

    def environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return os.environ | {
            "HOME": folder,  # of the Erlang cookie
            "ERL_EPMD_PORT": str(self.names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_MAX_PORTS": "4096",  # it sets aside memory for each that it might have
            "RABBITMQ_NODENAME": f"retrypool-{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self.distribution),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
        }

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return len(connection.recv(1)) == 1
        except OSError:
            return False

    def start(self) -> None:
        again = (self.folder / "mnesia").exists()
        epmd = shutil.which("epmd")
        if self._epmd is None and epmd is not None:
            # What finds Erlang nodes by their names. A node that has none starts one that stays for good.
            self._epmd = subprocess.Popen(
                [epmd, "-port", str(self.names), "-address", "127.0.0.1"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        super().start()
        if again:
            # Now and then RabbitMQ 3 leaves a queue without a leader after a kill: its issue 10070. This is
            # what helps.
            queues = "rabbit_amqqueue:list_by_type(rabbit_quorum_queue)"
            self._eval(f"[catch ra:trigger_election(amqqueue:get_pid(Q)) || Q <- {queues}], ok.")

    def sync(self) -> None:
        # What RabbitMQ 3 knows of a new queue, besides its messages, may be on the disk minutes later.
        self._eval("[dets:sync(Table) || Table <- dets:all()], ok.")

    def _eval(self, expression: str) -> None:
        subprocess.run(
            [str(Path(self.command()[0]).with_name("rabbitmqctl")), "eval", expression],
            env=self.environment(),
            capture_output=True,
            check=True,
            timeout=WITHIN,
        )

    def stop(self) -> None:
        self.kill()
        epmd, self._epmd = self._epmd, None
        if epmd is not None:
            epmd.kill()
            epmd.wait(WITHIN)


class Proxy:
    """Stands between a client and a server, and can cut what goes through it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._threads: list[threading.Thread] = []
        self.cuts = 0
        self._replies_to_cut = 0
        self._every = 1
        self._replies = 0
        self.closed = False
        self._start(self._accept)

    def _start(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.closed:
                client.close()
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            self._start(self._pump, client, server, pair, False)
            self._start(self._pump, server, client, pair, True)

    def _pump(
        self,
        source: socket.socket,
        target: socket.socket,
        pair: tuple[socket.socket, socket.socket],
        replies: bool,
    ) -> None:
        try:
            while data := source.recv(65536):
                if replies and self._is_cut():
                    break  # the server has done it, and the client does not hear of it
                target.sendall(data)
        except OSError:
            pass
        self._hang_up(pair)

    def _is_cut(self) -> bool:
        with self._lock:
            if self.cuts >= self._replies_to_cut:
                return False
            self._replies += 1
            if self._replies % self._every:
                return False
            self.cuts += 1
            return True

    def cut_replies(self, times: int, every: int) -> None:
        """Cut the connection in place of every so-manieth reply, so many times."""
        with self._lock:
            self._replies_to_cut, self._every = times, every

    def cut(self) -> None:
        """Cut all connections. New ones may be made."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._hang_up(pair)

    def _hang_up(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
        for each in pair:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for each in pair:
            each.close()

    def close(self) -> None:
        self.closed = True
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(WITHIN)


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.stop()
