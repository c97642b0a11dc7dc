"""E-mail addresses, URLs and IP addresses: what is one, and what only looks like one."""

from __future__ import annotations

import pytest

from strop.curate.clean.personal.find import find
from strop.curate.clean.personal.spans import Span
from tests.support.personal import values


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("write to ann@mail.org.", "ann@mail.org"),
        ("<Ann.Lee+tag@sub.mail.co.uk>", "Ann.Lee+tag@sub.mail.co.uk"),
        ("mailto:o'brien_7@x-y.io", "o'brien_7@x-y.io"),
        ("'ann@mail.org'", "ann@mail.org"),
        ("wait...ann@mail.org", "ann@mail.org"),
        ("jörg@müller.de schrieb", "jörg@müller.de"),
        ("邮箱ann@mail.org谢谢", "ann@mail.org"),
        ("x=ann@xn--mller-kva.de;", "ann@xn--mller-kva.de"),
    ],
)
def test_an_email_is_found_without_what_stands_around_it(text: str, address: str) -> None:
    assert values(text, "email") == [address]


@pytest.mark.parametrize(
    "text",
    [
        "ann@mail",
        "@mail.org",
        "ann@",
        "ann @ mail.org",
        "icon@2x.png",
        "pip install thing@1.2.3",
        "git clone git@github.com:org/repo",
        "ann@mail.c0",
        "ann@-mail-.org",
        "a" * 65 + "@mail.org",
    ],
)
def test_what_only_holds_the_sign_is_no_email(text: str) -> None:
    assert values(text, "email") == []


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("see https://a.org/b?c=1.", "https://a.org/b?c=1"),
        ("(https://a.org/Python_(language))", "https://a.org/Python_(language)"),
        ("[https://a.org/b](https://a.org/b)", "https://a.org/b"),
        ("www.a.org/b, then", "www.a.org/b"),
        ("at a.com/ann today", "a.com/ann"),
        ("http://localhost:8000/x", "http://localhost:8000/x"),
        ("http://jenkins:8080/job", "http://jenkins:8080/job"),
        ("http://[2001:db8::1]:80/", "http://[2001:db8::1]:80/"),
        ("HTTPS://KELVIN.SK/KICKS", "HTTPS://KELVIN.SK/KICKS"),
        ("https://a.org/路", "https://a.org/"),
    ],
)
def test_a_url_is_found_without_the_end_of_its_sentence(text: str, address: str) -> None:
    assert values(text, "url")[0] == address


@pytest.mark.parametrize(
    "text",
    [
        "https://",
        "http//a.org/b",
        "https:/a.org/b",
        "http://shop/x",
        "http://a..org",
        "http://a.org:99999/",
        "http://256.1.1.1/",
        "http://[::1/x",
        "www.example",
        "README.md and node.js",
        "and/or, a.b/c",
    ],
)
def test_what_breaks_one_rule_is_no_url(text: str) -> None:
    assert values(text, "url") == []


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("from 86.121.97.248.", "86.121.97.248"),
        ("10.2.3.4:8080", "10.2.3.4"),
        ("server 10.2.3.4", "10.2.3.4"),
        ("10.0.0.1-10.0.0.9", "10.0.0.1"),
        ("fe80::1ff:fe23:4567:890a%eth0", "fe80::1ff:fe23:4567:890a%eth0"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1:2:3:4:5"),
        ("::ffff:192.0.2.128", "::ffff:192.0.2.128"),
    ],
)
def test_an_address_of_a_machine(text: str, address: str) -> None:
    assert values(text, "ip")[0] == address


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4",
        "v1.2.3.4",
        "Chrome/91.0.44.12",
        "thing==1.2.3.4",
        "see section 3.1.2.4",
        "256.1.1.1",
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",
        "127.0.0.1 and 0.0.0.0 and 255.255.255.0 and ::1",
        "at 12:30:45",
        "00:1a:2b:3c:4d:5e and 00:11:22:33:44:55:66:77",
        "numbers[1::2], [::3], std::vector, Bed::add",
        "1:2:3:4:5:6:7:8:9",
        "1::2::3",
    ],
)
def test_versions_slices_masks_and_loops_are_no_addresses(text: str) -> None:
    assert values(text, "ip") == []


def test_a_url_wins_over_the_address_inside_and_kinds_choose() -> None:
    text = "http://10.2.3.4/ann@mail.org"
    assert find(text) == [Span("url", 0, len(text))]
    assert find(text, kinds=["ip"]) == [Span("ip", 7, 15)]
    assert find(text, kinds=["email"]) == [Span("email", 16, 28)]
