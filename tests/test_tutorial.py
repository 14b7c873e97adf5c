"""The tutorial is run: each command of its pages, and each client against each server."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import DEADLINE_S, ROOT, free_port
from daemons import GREETING, eventually, read_all

from twistedsock.cli.connect import EXITS
from twistedsock.errors import TwistedsockError

TUTORIAL = ROOT / "docs" / "tutorial"
PROGRAMS = TUTORIAL / "programs"
FOLDER = "docs/tutorial/programs"  # as the pages name it
PAGES = sorted(TUTORIAL.glob("[0-9]*.md"))
FILES = sorted(
    path for path in PROGRAMS.rglob("*") if path.suffix in {".py", ".toml"} and path.is_file()
)


class Scene(NamedTuple):
    """One block of a page: commands and what they print; it begins with nothing running."""

    name: str
    commands: list[tuple[str, str]]


def scenes() -> Iterator[Scene]:
    """Yield every block of commands."""
    for page in PAGES:
        blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.M | re.S)
        for number, block in enumerate(blocks):
            parts = [part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.M)[1:]]
            yield Scene(f"{page.stem}-{number}", [(command, out) for command, _, out in parts])


SCENES = list(scenes())

# What each server is asked besides what its page shows: by the clients of the other kind.
CROSSWISE = {
    "02_server_plain": "02_client 03_client_await",
    "02_server": "02_client_plain 04_clients_plain",
    "04_server_threads_plain": "03_client_callbacks 04_clients",
    "04_server_select_plain": "02_client 04_clients",
    "05_server_plain": "05_client",
    "05_server": "05_client_plain",
    "06_server_plain": "06_client",
    "06_server": "06_client_plain",
    "07_server_plain": "07_client",
    "07_server": "07_client_plain",
    "10_server_plain": "10_clients",
    "10_server": "10_clients_plain",
}


class Stage:
    """A folder in which the commands of a page work as shown, on free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kinds = {"8888": socket.SOCK_STREAM, "8889": socket.SOCK_DGRAM}
        self.ports = {shown: str(free_port(kind)) for shown, kind in kinds.items()}
        self.servers: list[tuple[subprocess.Popen[bytes], Path]] = []
        for path in FILES:
            copy = folder / FOLDER / path.relative_to(PROGRAMS)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(self.real(path.read_text()))
        site = folder / "site"
        _install(PROGRAMS / "11_shout", site)
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(site),
            # Stock Twisted never closes the descriptor that it keeps in reserve, nor do threads
            # that a plain server leaves behind close theirs.
            "PYTHONWARNINGS": "error,ignore::ResourceWarning",
        }

    @property
    def port(self) -> int:
        """The port that stands for 8888."""
        return int(self.ports["8888"])

    def real(self, text: str) -> str:
        """Return what a page shows, with this stage's ports."""
        return re.sub(r"\b888[89]\b", lambda found: self.ports[found[0]], text)

    def shown(self, text: str) -> str:
        """Return what was printed as a page shows it: what differs from run to run is alike."""
        for shown, real in self.ports.items():
            text = re.sub(rf"\b{real}\b", shown, text)
        text = re.sub(r"(127\.0\.0\.1[ :])(?!888[89])\d+", r"\g<1>50000", text)
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4}", "2026-11-23T10:00:00+0000", text)
        text = re.sub(r"after \d\.\d{3}s", "after 0.002s", text)
        # Where there is no network a resolver cannot know that there is no such name.
        text = re.sub(r"Temporary failure in .* \(-3\)", "Name or service not known (-2)", text)
        told = "Name or service not known (EAI_NONAME)"
        text = re.sub(r"Temporary failure in .* \(EAI_AGAIN\)", told, text)
        return re.sub(r"\b(\d\.\d) seconds", _about, text)

    def _popen(self, command: str, output: Path) -> subprocess.Popen[bytes]:
        # A shell or a worker may have us ignore SIGINT, which a child would inherit.
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            with output.open("ab") as file:
                return subprocess.Popen(
                    ["sh", "-c", command],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env=self.environment,
                    start_new_session=True,
                )
        finally:
            signal.signal(signal.SIGINT, before)

    def start(self, command: str) -> None:
        """Start a server, and wait until it listens."""
        output = self.folder / f"server-{len(self.servers)}"
        process = self._popen(f"exec {self.real(command)}", output)
        self.servers.append((process, output))
        redirected = re.search(r">(\S+)", command)
        told = self.folder / redirected[1] if redirected else output

        def listening() -> bool:
            assert process.poll() is None, output.read_text()
            return told.exists() and "listening on port" in told.read_text()

        eventually(listening)

    def begin(self, command: str) -> Callable[[], str]:
        """Start a command; return a function that waits for what it printed."""
        output = self.folder / f"output-{len(list(self.folder.iterdir()))}"
        process = self._popen(self.real(command), output)

        def finish() -> str:
            try:
                process.wait(DEADLINE_S)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            return self.shown(output.read_text())

        return finish

    def stop(self) -> None:
        """End each server as Ctrl-C does; it goes quietly."""
        for process, output in self.servers:
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_S) == 0
            assert self.shown(output.read_text()) in ("", "listening on port 8888\n")

    def clear(self) -> None:
        """Kill what is left."""
        for process, _ in self.servers:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for path in self.folder.glob("*.pid"):
            os.kill(int(path.read_text()), signal.SIGKILL)


def _about(found: re.Match[str]) -> str:
    """Return about how long: once the pause of the work, or five times; between is neither."""
    seconds = float(found[1])
    if 0.3 <= seconds < 1.2:
        return "0.3 seconds"
    return "1.5 seconds" if 1.5 <= seconds < 5 else found[0]


def _install(package: Path, site: Path) -> None:
    """Make *site* offer the *package*'s services, as its installation would."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(about)
    lines = [f"{name} = {where}" for name, where in project["entry-points"][GROUP].items()]
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "\n".join(lines) + "\n")
    for module in package.glob("*.py"):
        shutil.copy(module, site)


GROUP = "twistedsock.services"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A stage that is empty afterwards."""
    stage = Stage(tmp_path)
    try:
        yield stage
    finally:
        stage.clear()


def printed(program: str) -> str:
    """Return what *program*, plain or ours, prints by the first block that runs it."""
    program = program.removesuffix("_plain")
    for scene in SCENES:
        for command, output in scene.commands:
            if command.replace("_plain", "") == f"python {FOLDER}/{program}.py":
                return output
    raise AssertionError(f"no page runs {program}")


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_the_commands_print_what_the_page_shows(scene: Scene, stage: Stage) -> None:
    """A page's commands print what it says, and its servers end by Ctrl-C.

    So do the other kind's clients, where a server is met for the first time.
    """
    running: list[tuple[str, str, Callable[[], str]]] = []
    for command, output in scene.commands:
        if command.endswith(" &"):
            stage.start(command.removesuffix(" &"))
            assert output == "" or output == "listening on port 8888\n"
            continue
        # Clients of one server need not wait for each other; other commands do.
        if not (stage.servers and CLIENT.match(command)):
            finish_all(running)
        running.append((command, output, stage.begin(command)))
        if not stage.servers:
            finish_all(running)
    finish_all(running)
    for client in crosswise(scene):
        command = f"python {FOLDER}/{client}.py 8888"
        output = printed(client)
        if client.startswith("04"):  # a few are enough
            command, output = f"{command} 30", output.replace("200", "30")
        running.append((command, output, stage.begin(command)))
    finish_all(running)
    stage.stop()


def crosswise(scene: Scene) -> list[str]:
    """Return which clients have from the server of *scene* what they have from their own kind."""
    first, _ = scene.commands[0]
    met = [scene for scene in SCENES if scene.commands[0][0] == first]
    name = Path(first.removesuffix(" &")).stem
    return CROSSWISE.get(name, "").split() if met[0] is scene else []


CLIENT = re.compile(r"python |twistedsock connect|\(?echo ")


def finish_all(running: list[tuple[str, str, Callable[[], str]]]) -> None:
    """Wait for the commands that run, and compare what each has printed."""
    while running:
        command, output, finish = running.pop(0)
        assert finish() == output, command


def test_a_plain_client_on_a_bad_day(stage: Stage) -> None:
    """The plain programs live with loss, repeats and reordering as ours do."""
    stage.start(f"python {FOLDER}/06_server_plain.py")
    stage.start(f"python {FOLDER}/06_bad_network_plain.py >fates.txt")
    finish = stage.begin(f"python {FOLDER}/06_client_plain.py 8889")
    command = f"python {FOLDER}/06_client.py 8889"
    assert finish() == next(
        dict(s.commands)[command] for s in SCENES if command in dict(s.commands)
    )
    stage.stop()


@pytest.mark.parametrize("server", ["07_server_plain", "07_server"])
def test_a_bad_value_ends_its_own_session(server: str, stage: Stage) -> None:
    """What is no literal is not run and closes one connection; the others go on."""
    stage.start(f"python {FOLDER}/{server}.py")
    address = ("127.0.0.1", stage.port)
    with socket.create_connection(address, DEADLINE_S) as good:
        # The second is a literal, but no list of numbers. The plain server tells its terminal.
        for line in [b"print(1)\n"] + [b"{'a': 1}\n"] * (server == "07_server"):
            with socket.create_connection(address, DEADLINE_S) as bad:
                bad.sendall(line)
                assert bad.recv(100) == b""
        good.sendall(b"[1, 2]\n")
        assert good.recv(100) == b"{'count': 2, 'sum': 3}\n"
    _, output = stage.servers[0]
    assert ("Total: the service raised" in output.read_text()) == (server == "07_server")


def test_answers_come_in_the_order_of_the_questions(stage: Stage) -> None:
    """One client's messages are worked on one after the other."""
    stage.start(f"python {FOLDER}/10_server.py")
    with socket.create_connection(("127.0.0.1", stage.port), DEADLINE_S) as client:
        client.sendall(b"one\ntwo\n")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"OK...one\nOK...two\n"
    stage.stop()


def test_one_address_may_connect_twice(stage: Stage) -> None:
    """The limit in the daemon's file holds: the third connection is closed."""
    flags = "-n --pidfile= --logfile=log"
    command = f"exec twistd {flags} sockservice --config {FOLDER}/11_daemon.toml"
    process = stage._popen(stage.real(command), stage.folder / "daemon")
    stage.servers.append((process, stage.folder / "daemon"))
    log = stage.folder / "log"
    eventually(lambda: log.exists() and "accepting on" in log.read_text())
    address = ("127.0.0.1", stage.port)
    with socket.create_connection(address, 5) as first, socket.create_connection(address, 5) as two:
        for sock in first, two:
            sock.sendall(b"hello\n")
            assert sock.recv(100) == b"HELLO!\n"
        with socket.create_connection(address, DEADLINE_S) as third:
            assert third.recv(100) == b""
    stage.stop()
    assert "limit_per_source 127.0.0.1" in log.read_text()


def test_the_exit_statuses_are_those_of_the_table() -> None:
    """The page's table of statuses says what twistedsock connect does."""
    text = (TUTORIAL / "08-failures.md").read_text()
    table = {
        int(status): what for status, what in re.findall(r"^\| (\d\d) \| ([^:|]*)", text, re.M)
    }
    words = {
        "CannotResolve": "cannot resolve",
        "Refused": "refused",
        "Unreachable": "unreachable",
        "PeerClosed": "closed by the peer before its time",
        "CannotSend": "cannot send",
        "TimedOut": "timed out",
    }
    by_name: dict[str, int] = {kind.__name__: status for kind, status in EXITS.items()}
    assert {status: what.strip() for status, what in table.items()} == {
        by_name[name]: what for name, what in words.items()
    }
    assert all(issubclass(kind, TwistedsockError) for kind in EXITS)


def test_every_failure_is_met() -> None:
    """Each failure of the first table is printed by the plain client and by ours."""
    text, _, _ = (TUTORIAL / "08-failures.md").read_text().partition("\n## ")
    failures = re.findall(r"^\| ([a-z ]+) \|", text, re.M)[1:]
    assert len(failures) == 6
    for what in failures:
        name = "PeerClosed" if what == "closed by the peer" else what.title().replace(" ", "")
        outputs = [output for scene in SCENES for _, output in scene.commands]
        assert any(f"{what}: " in output for output in outputs), what
        assert any(f"{name}: " in output for output in outputs), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_page_shows_each_program(path: Path) -> None:
    """Each program stands on the page of its number, letter for letter, and is short."""
    name = path.relative_to(PROGRAMS).as_posix()
    text = path.read_text()
    (page,) = [page for page in PAGES if page.name[:2] == name[:2]]
    shown = f"[`programs/{name}`](programs/{name}):\n\n```{path.suffix[1:]}".replace(
        "```py", "```python"
    )
    assert f"{shown}\n{text}```\n" in page.read_text()
    assert len(text.splitlines()) <= 40


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_shows_nothing_else(path: Path) -> None:
    """Each block of a page is a file, or commands; its links lead somewhere."""
    text = path.read_text()
    languages = re.findall(r"^```(\w+)$", text, re.M)
    headed = re.findall(r"^\[`programs/\S+`\]\(programs/\S+\):\n\n```(\w+)$", text, re.M)
    assert headed == [each for each in languages if each not in {"console", "sh"}]
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (path.parent / target).exists(), target


def test_the_contents_are_complete_and_in_order() -> None:
    """The contents name every page in order, and each page leads to the next."""
    text = (TUTORIAL / "README.md").read_text()
    names = [page.name for page in PAGES]
    assert re.findall(r"\]\((\d\d-[a-z-]+\.md)\)", text) == names
    for page, follower in zip(PAGES, [*names[1:], "README.md"], strict=True):
        assert page.read_text().rstrip().endswith(f"]({follower})")
        title = page.read_text().partition("\n")[0].removeprefix("# ")
        assert f"[{title}]({page.name})" in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (TUTORIAL / target).exists(), target


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem.endswith("_plain")], ids=lambda path: path.name
)
def test_plain_is_plain(path: Path) -> None:
    """A plain program imports the standard library alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {each.name for each in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert node.module in sys.stdlib_module_names


def test_the_greeting_is_the_service_s() -> None:
    """The programs greet in the words of the echo-reply service."""
    for path in FILES:
        for found in re.findall(r"^GREETING = (.*)$", path.read_text(), re.M):
            assert ast.literal_eval(found) == GREETING
