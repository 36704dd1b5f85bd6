# SPDX-License-Identifier: Apache-2.0
"""XML-RPC over HTTP/1.1: connections that stay, and requests that are none."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

import pytest

from tests.server.raw import Post, Served, connected, outcome, xml

PING = xml("Host.ping")


def exchange(served: Served, data: bytes) -> bytes:
    """Everything that is answered to these bytes, until the service closes the connection."""
    with connected(served.http) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def post_bytes(body: bytes = PING, *head: str) -> bytes:
    lines = ["POST /RPC2 HTTP/1.1", "Host: localhost", "Content-Type: text/xml", *head]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in head):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_many_calls_go_over_one_connection(post: Post) -> None:
    assert post.call("Host.ping")["time"] <= time.time()
    sock = post.http.sock
    for _ in range(5):
        post.call("Host.ping")
    assert post.http.sock is sock


def test_an_error_keeps_the_connection_too(post: Post) -> None:
    assert post.call("Host.nonsense") == "NoSuchVerb"
    sock = post.http.sock
    assert post.status(b"no xml")[0] == 200
    assert post.call("Host.ping")
    assert post.http.sock is sock


def test_a_call_does_not_wait_for_packets_to_be_put_together(post: Post) -> None:
    """Nagle's algorithm and delayed acknowledgements would make each call take 40 ms."""
    post.call("Host.ping")
    best = min(_timed(post) for _ in range(10))
    assert best < 0.03


def _timed(post: Post) -> float:
    began = time.perf_counter()
    post.call("Host.ping")
    return time.perf_counter() - began


def test_calls_sent_together_are_answered_in_order(served: Served) -> None:
    answers = exchange(served, post_bytes() + post_bytes(xml("Host.nonsense")) + post_bytes()).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 3
    bodies = [outcome(answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    assert bodies[1] == "NoSuchVerb"
    assert bodies[0]["time"] <= bodies[2]["time"]


def test_a_call_may_come_byte_by_byte(served: Served) -> None:
    with connected(served.http) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post_bytes():
            sock.sendall(bytes([byte]))
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_the_connection_ends_when_the_client_asks_for_it(served: Served) -> None:
    with connected(served.http) as sock:
        sock.sendall(post_bytes(PING, "Connection: close"))
        data = b""
        while part := sock.recv(65536):
            data += part
    assert data.startswith(b"HTTP/1.1 200 ")


def test_a_client_of_http_1_0_is_answered(served: Served) -> None:
    assert b" 200 OK" in exchange(served, post_bytes().replace(b"HTTP/1.1", b"HTTP/1.0"))


def test_a_client_that_waits_to_be_told_to_go_on_is_told(served: Served) -> None:
    with connected(served.http) as sock:
        sock.sendall(post_bytes(b"", f"Content-Length: {len(PING)}", "Expect: 100-continue"))
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(PING)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_answers_are_documents_with_a_length(post: Post) -> None:
    post.http.request("POST", "/RPC2", PING, {"Content-Type": "text/xml; charset=utf-8"})
    response = post.http.getresponse()
    body = response.read()
    assert response.getheader("Content-Type") == "text/xml"
    assert response.getheader("Content-Length") == str(len(body))
    assert body.startswith(b"<?xml")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_nothing_but_post_is_answered(post: Post, method: str) -> None:
    status, said = post.status(method=method)
    assert status == 501
    assert (said == b"") is (method == "HEAD")
    assert method == "HEAD" or said.startswith(b"This is XML-RPC: calls are sent by POST to /RPC2,")


@pytest.mark.parametrize("path", ["/rpc2", "/RPC2/", "/RPC2?x", "/../RPC2", "/RPC22", "*", "http://localhost/RPC2"])
def test_no_other_path_is_answered(post: Post, path: str) -> None:
    assert post.status(PING, path=path) == (404, b"")


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", "nonsense", ""],
)
def test_what_a_web_page_can_make_a_browser_send_is_refused(post: Post, content_type: str) -> None:
    """Only types that a page may send to another site without asking it first."""
    status, said = post.status(PING, content_type=content_type)
    assert (status, said.partition(b",")[0]) == (415, b"Send the call with the header 'Content-Type: text/xml'")


def test_a_body_without_a_type_is_refused(served: Served) -> None:
    assert exchange(served, post_bytes().replace(b"Content-Type: text/xml\r\n", b"")).startswith(b"HTTP/1.1 415 ")


def test_nobody_answers_a_browser_that_asks_first(post: Post) -> None:
    post.http.request(
        "OPTIONS", "/RPC2", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    )
    response = post.http.getresponse()
    response.read()
    assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "head",
    [
        ("Transfer-Encoding: chunked",),
        ("Transfer-Encoding: chunked", f"Content-Length: {len(PING)}"),
        ("Transfer-Encoding: identity", f"Content-Length: {len(PING)}"),
        (f"Content-Length: {len(PING)}", f"Content-Length: {len(PING)}"),
        (f"Content-Length: {len(PING)}", "Content-Length: 0"),
        ("Content-Length:",),
        ("Content-Length: x",),
        ("Content-Length: -1",),
        ("Content-Length: +5",),
        ("Content-Length: 0x10",),
        ("Content-Length: 1_0",),
        ("Content-Length: ²",),
        ("Content-Length: " + "9" * 20,),
    ],
)
def test_a_body_whose_length_is_not_told_once_and_plainly_is_refused(served: Served, head: tuple[str, ...]) -> None:
    answered = exchange(served, post_bytes(PING, *head) + post_bytes())
    assert answered.startswith(b"HTTP/1.1 411 ")
    assert answered.count(b"HTTP/1.1 ") == 1


def test_a_body_that_ends_early_is_not_answered(served: Served) -> None:
    assert exchange(served, post_bytes(PING[:-10], f"Content-Length: {len(PING)}")) == b""


NONSENSE = {
    "no http": b"hello\r\n\r\n",
    "a frame": b"\0\0\0\0\0\0\0\x02{}\r\n\r\n",
    "http/0.9": b"POST /RPC2\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version of letters": b"POST /RPC2 HTTP/x.y\r\n\r\n",
    "a long path": b"POST /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    "a long header": b"POST /RPC2 HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    "many headers": b"POST /RPC2 HTTP/1.1\r\n" + b"X: x\r\n" * 200 + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200 + b"\n",
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE.keys())
def test_what_is_no_request_ends_the_connection(served: Served, data: bytes) -> None:
    # Closed with bytes of ours unread, a connection is reset.
    with suppress(ConnectionResetError):
        assert b"methodResponse" not in exchange(served, data + post_bytes(b""))


def test_afterwards_the_service_is_well(served: Served, post: Post) -> None:
    assert post.call("Host.ping")
    assert "Traceback" not in served.log


def test_the_request_id_of_a_header_goes_into_the_log(served: Served, post: Post) -> None:
    post.call("Host.ping", Request_Id="over-http-17")
    assert "[over-http-17] libvdsm.dispatch: call verb=Host.ping user=anonymous@127.0.0.1 wire=http" in served.log


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:54330", "127.0.0.1", "127.0.0.1:8080", "[::1]:54330"])
def test_a_name_of_the_loopback_address_is_answered(served: Served, host: str) -> None:
    assert exchange(served, post_bytes().replace(b"localhost", host.encode(), 1)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "127.0.0.1.example.com:54330", "", "[::1"])
def test_a_foreign_name_that_leads_here_is_not_answered(served: Served, host: str) -> None:
    """A web page can have its own name lead to the loopback address, and then read what is answered."""
    answer = exchange(served, post_bytes().replace(b"localhost", host.encode(), 1))
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert b"methodResponse" not in answer


def test_a_request_with_no_host_or_two_is_not_answered(served: Served) -> None:
    for line in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
        assert exchange(served, post_bytes().replace(b"Host: localhost\r\n", line, 1)).startswith(b"HTTP/1.1 421 ")
