"""The command on a real socket: it serves until Ctrl-C, and what keeps it from that is one line."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing

import pytest

pytest.importorskip("starlette")  # not in the environments of older transformers

from spr_plugin.cli import main
from spr_plugin.tools.inspect import serve

SPR = [sys.executable, "-m", "spr_plugin", "inspect"]


@pytest.mark.slow
def test_it_serves_this_machine_alone_until_ctrl_c(made_run):
    """Ids come to it as a browser sends them, and raw bytes of a name that is not ours get nothing."""
    ids = [pair["id"] for pair in made_run.pairs]
    strange = "a/b?c#d%2F é"
    log = made_run.folder.log("pairs")
    log.write([{**one, "id": strange if one["id"] == ids[0] else one["id"]} for one in log.read().values()])
    with subprocess.Popen(
        [*SPR, made_run.output, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        address = server.stdout.readline().split()[0]
        port = int(address.rstrip("/").rpartition(":")[2])
        ask = lambda path, **headers: answer_of(port, path, headers)
        assert ask("/")[0] == 200 and ask("/pair/a%2Fb%3Fc%23d%252F%20%C3%A9")[0] == 200
        assert ask("/pair/..%2f..%2fetc%2fpasswd")[0] == 404 and ask("/", Host="evil.example")[0] == 400
        others = [ip for ip in own_addresses() if not ip.startswith("127.")]
        for ip in others:
            with closing(socket.socket()) as other:
                assert other.connect_ex((ip, port))
        server.send_signal(signal.SIGINT)
        said = server.communicate(timeout=60)
    assert (server.returncode, said) == (0, ("", ""))


def answer_of(port, path, headers):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def own_addresses():
    try:
        return {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    except OSError:
        return set()


def refused(monkeypatch, capsys, *words) -> str:
    monkeypatch.setattr(sys, "argv", ["spr", "inspect", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert ended.value.code == 2 and not out and line.startswith("spr: error: ")
    return line


def test_a_port_that_is_taken_is_one_line(made_run, monkeypatch, capsys):
    with closing(serve.listening(0)) as taken:
        port = taken.getsockname()[1]
        line = refused(monkeypatch, capsys, made_run.output, "--port", port)
    assert f"--port {port}: Address already in use; name another one, or 0 for any that is free" in line


@pytest.mark.parametrize("port", [-1, 65536, 10**30])
def test_a_port_that_is_none_is_one_line(made_run, monkeypatch, capsys, port):
    assert f"--port {port}: " in refused(monkeypatch, capsys, made_run.output, "--port", port)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may take any port")
def test_a_port_that_is_not_for_anybody_is_one_line(made_run, monkeypatch, capsys):
    assert "Permission denied" in refused(monkeypatch, capsys, made_run.output, "--port", 1)


def test_no_folder_of_pictures_and_no_run_are_one_line(made_run, monkeypatch, capsys, tmp_path):
    gone = tmp_path / "gone"
    assert f"--images {gone}: no such folder" in refused(
        monkeypatch, capsys, made_run.output, "--images", gone
    )
    assert "no SPR run here" in refused(monkeypatch, capsys, gone)
    assert "--spr_plugin nothing.py: no such file" in refused(
        monkeypatch, capsys, made_run.output, "--spr_plugin", "nothing.py"
    )


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "jinja2"])
def test_a_missing_package_is_one_line_with_the_extra(made_run, monkeypatch, capsys, package):
    monkeypatch.delitem(sys.modules, "spr_plugin.tools.inspect.app", raising=False)
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    line = refused(monkeypatch, capsys, made_run.output)
    assert f"({package} is missing): pip install 'spr-plugin[inspect]'" in line
