"""Forms: plain ones are read as Starlette, Werkzeug and Django read them, all others refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guardrail.http.parsing.forms import Form, read_form
from guardrail.http.parsing.values import UnreadableError
from tests.effort import calls_of
from tests.http.form_readers import READERS, read_everywhere

TYPE = b"multipart/form-data; boundary=xYz"
ENCODED = b"application/x-www-form-urlencoded"
PURPOSE = b'Content-Disposition: form-data; name="purpose"'


def part(head: bytes = PURPOSE, content: bytes = b"batch") -> bytes:
    return head + b"\r\n\r\n" + content


def form_of(*parts: bytes, boundary: bytes = b"xYz") -> bytes:
    opened = b"".join(b"--%b\r\n%b\r\n" % (boundary, one) for one in parts)
    return opened + b"--%b--\r\n" % boundary


def texts(form: Form) -> dict[str, list[str]]:
    """Return fields as the frameworks give them."""
    found = {}
    for name, value in form.fields.items():
        every = value if isinstance(value, list) else [value]
        found[name] = [str(one).strip().lower() for one in every]
    return found


def lowered(fields: dict[str, list[str]]) -> dict[str, list[str]]:
    return {
        name: [str(int(v)) if v.isdecimal() and len(v) < 17 else v.strip().lower() for v in values]
        for name, values in fields.items()
    }


@pytest.mark.parametrize("after", [b"x", b"\r\n", b"--", b" ", b"\0"])
def test_a_form_ends_with_its_last_part(after):
    form = form_of(part())
    assert read_form(form, TYPE).fields == read_form(form.removesuffix(b"\r\n"), TYPE).fields

    with pytest.raises(UnreadableError, match=r"boundary|last part"):
        read_form(form + after, TYPE)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_what_clients_send_is_read_as_the_framework_reads_it(reader):
    file = b'Content-Disposition: form-data; name="file"; filename="b \xc3\xa9;%22.jsonl"'
    net = b"Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=model"
    star = b"Content-Disposition: form-data; name=mask; filename=m.png; filename*=utf-8''m.png"
    body = form_of(
        part(),
        part(file + b"\r\nContent-Type: application/jsonl", b"{}\r\n\r\n{}"),
        part(net, b"small"),
        part(star, b"\x89PNG\r\n"),
        part(b'Content-Disposition: form-data; name="a[]"', b"x"),
        part(b'Content-Disposition: form-data; name="a[]"', b"y"),
    )

    form = read_form(body, TYPE)

    fields, files = reader(body, TYPE)
    assert texts(form) == fields == {"purpose": ["batch"], "model": ["small"], "a[]": ["x", "y"]}
    assert set(form.files) == files == {"file", "mask"}
    assert bytes(form.files["file"]) == b"{}\r\n\r\n{}"


FILE = b'Content-Disposition: form-data; name="file"; filename="f"'
ODD_PARTS = {
    "a file name within a parameter": PURPOSE + b'; x="; filename="',
    "a parameter that is none": PURPOSE + b"; x=1",
    "two names": PURPOSE + b'; name="other"',
    "two file names": FILE + b'; filename="g"',
    "an escaped quote": b'Content-Disposition: form-data; name="pur\\"pose"',
    "an encoded quote": b'Content-Disposition: form-data; name="pur%22pose"',
    "an extended name": b"Content-Disposition: form-data; name*=utf-8''purpose",
    "an extended file name alone": PURPOSE + b"; filename*=utf-8''f",
    "a continued file name": PURPOSE + b"; filename*0=f",
    "a name in spaces": b'Content-Disposition: form-data; name=" purpose"',
    "a name in capitals": b'Content-Disposition: form-data; NAME="purpose"',
    "no name": b"Content-Disposition: form-data",
    "an attachment": b'Content-Disposition: attachment; name="purpose"',
    "an unquoted space": b"Content-Disposition: form-data; name=pur pose",
    "a charset": PURPOSE + b"\r\nContent-Type: text/plain; charset=utf-16",
    "a part in parts": PURPOSE + b"\r\nContent-Type: multipart/mixed; boundary=q",
    "base64": PURPOSE + b"\r\nContent-Transfer-Encoding: base64",
    "quoted-printable": PURPOSE + b"\r\nContent-Transfer-Encoding: quoted-printable",
    "two dispositions": PURPOSE + b"\r\n" + FILE,
    "a folded line": b'Content-Disposition: form-data;\r\n name="purpose"',
    "a bare line feed": b'X-A: b\n' + PURPOSE,
    "a bare carriage return": b"X-A: b\r" + PURPOSE,
    "a null": b'Content-Disposition: form-data; name="pur\0pose"',
    "an unknown header": PURPOSE + b"\r\nX-Filename: f",
    "another length": PURPOSE + b"\r\nContent-Length: 2",
    "a file name that is empty": PURPOSE + b'; filename=""',
    "no head": b"",
    "a charset field": b'Content-Disposition: form-data; name="_charset_"',
    "a space before the colon": b'Content-Disposition : form-data; name="purpose"',
}  # fmt: skip


@pytest.mark.parametrize("head", ODD_PARTS.values(), ids=ODD_PARTS)
def test_a_part_that_is_not_plain_is_refused(head):
    with pytest.raises(UnreadableError) as refused:
        read_form(form_of(part(head)), TYPE)

    assert refused.value.status == 400


ODD_BODIES = {
    "a preamble": (b"x\r\n" + form_of(part()), TYPE),
    "an empty line before": (b"\r\n" + form_of(part()), TYPE),
    "an epilogue": (form_of(part()) + b"x", TYPE),
    "no end": (form_of(part())[:-8], TYPE),
    "half an end": (form_of(part())[:-3], TYPE),
    "line feeds alone": (form_of(part()).replace(b"\r\n", b"\n"), TYPE),
    "the boundary after a line feed": (form_of(part(content=b"a\n--xYz\nb")), TYPE),
    "the boundary within a line": (form_of(part(content=b"a--xYz")), TYPE),
    "a longer boundary": (form_of(part(content=b"a\r\n--xYzz\r\nb")), TYPE),
    "space after the boundary": (form_of(part()).replace(b"xYz\r\n", b"xYz \r\n", 1), TYPE),
    "two fields of a name": (form_of(part(), part(content=b"other")), TYPE),
    "a field and a file of a name": (
        form_of(part(), part(PURPOSE + b'; filename="f"')),
        TYPE,
    ),
    "no UTF-8": (form_of(part(content=b"\xff")), TYPE),
    "another boundary": (form_of(part()), TYPE + b"z"),
    "two boundaries": (form_of(part()), TYPE + b"; boundary=q"),
    "no boundary": (form_of(part()), b"multipart/form-data"),
    "a boundary in capitals": (form_of(part()), b"multipart/form-data; BOUNDARY=xYz"),
    "an extended boundary": (form_of(part()), b"multipart/form-data; boundary*=utf-8''xYz"),
    "a charset": (form_of(part()), TYPE + b"; charset=utf-16"),
    "another multipart": (form_of(part()), b"multipart/mixed; boundary=xYz"),
    "two types": (form_of(part()), TYPE + b", " + TYPE),
    "a very long boundary": (
        form_of(part(), boundary=b"x" * 71),
        b"multipart/form-data; boundary=" + b"x" * 71,
    ),
    "semicolons": (b"a=1;purpose=batch", ENCODED),
    "a field twice": (b"purpose=x&purpose=batch", ENCODED),
    "a field twice, encoded": (b"purpose=x&p%75rpose=batch", ENCODED),
    "bytes that are not encoded": ("purpose=bätch".encode(), ENCODED),
    "half an escape": (b"purpose=%6", ENCODED),
    "an escape that is none": (b"purpose=%zz", ENCODED),
    "encoded bytes that are not UTF-8": (b"purpose=%ff", ENCODED),
    "an empty field": (b"a=1&&b=2", ENCODED),
    "a charset, encoded": (b"purpose=batch", ENCODED + b"; charset=utf-16"),
    "a charset field, encoded": (b"_charset_=utf-16&purpose=batch", ENCODED),
}


@pytest.mark.parametrize(("body", "kind"), ODD_BODIES.values(), ids=ODD_BODIES)
def test_a_form_that_is_not_plain_is_refused(body, kind):
    with pytest.raises(UnreadableError) as refused:
        read_form(body, kind)

    assert refused.value.status == 400


VALUES = st.sampled_from(
    [b"batch", b"", b"7", b"True", b"a\r\nb", b"\r\n", b"--", b"\xff", b"--xYz"]
)
HEADS = st.lists(
    st.sampled_from(
        [
            b"Content-Disposition: form-data",
            b"content-disposition:form-data",
            *[b"; %b" % p for p in (
                b'name="purpose"', b"name=purpose", b'name="a[]"', b"name=file", b'name="p;q"',
                b"name='purpose'", b'name="%70urpose"', b'name="pur\\\\pose"', b'x="; filename="',
                b'filename="f"', b"filename=f", b'filename=""', b'filename="a;b"', b'filename=".."',
                b"filename='f'", b"filename*=utf-8''f", b"filename*=UTF-8''%41", b'filename="a\\""',
                b"filename*0=a", b'x=1', b'filename="&quot;"', b'FileName="f"', b"filename = f",
            )],
            b"\r\nContent-Type: text/plain",
            b"\r\nContent-Type: text/plain; charset=utf-8",
            b"\r\nContent-Type: text/plain; charset=iso-8859-1",
            b"\r\nContent-Type: multipart/mixed; boundary=q",
            b"\r\nContent-Transfer-Encoding: base64",
            b"\r\nContent-Transfer-Encoding: binary",
            b"\r\nContent-Length: 5",
            b"\r\n folded",
            b"\r\nX: y",
            b"\n",
            b"\r",
            b'"',
            b" ",
            b"\t",
            b"\0",
        ]
    ),
    max_size=6,
).map(b"".join)  # fmt: skip
PLAIN = st.sampled_from(
    [
        PURPOSE,
        FILE,
        b"Content-Disposition: form-data; name=mask; filename=m; filename*=utf-8''m",
        b'Content-Disposition: form-data; name="a[]"',
        b'Content-Disposition: form-data; name="n"\r\nContent-Type: text/plain',
        b'Content-Disposition: form-data; name="f"; filename=""',
        b'Content-Disposition: form-data; name="f"; filename="a; name=b"',
    ]
)
PARTS = st.lists(st.builds(part, PLAIN | HEADS, VALUES), max_size=4)
PUT = st.sampled_from([b"", b"\n", b"\r", b"-", b'"', b";"])
EDITS = st.lists(st.tuples(st.integers(0, 400), PUT), max_size=2)
TYPES = st.sampled_from(
    [
        TYPE,
        b'multipart/form-data; boundary="xYz"',
        TYPE + b"; charset=utf-8",
        TYPE + b"; charset=latin-1",
        TYPE + b'; boundary="a"',
        b"multipart/form-data;boundary=xYz;",
        b"multipart/form-data; boundary= xYz",
        b"multipart/form-data; x=boundary=xYz",
    ]
)


def edited(body: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    for at, put in edits:
        body = body[:at] + put + body[at + (not put) :]
    return body


def agrees(body: bytes, kind: bytes) -> None:
    try:
        form = read_form(body, kind)
    except UnreadableError:
        return
    for fields, files in read_everywhere(body, kind):
        assert lowered(fields) == texts(form)
        # Django passes over files without a name; more than what is seen is never there.
        assert files <= form.files.keys()


@settings(max_examples=300, deadline=None)
@given(PARTS, EDITS, TYPES)
@example([part(PURPOSE + b'; x="; filename="')], [], TYPE)
def test_no_framework_reads_another_form_than_the_guard(parts, edits, kind):
    agrees(edited(form_of(*parts), edits), kind)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(["purpose", "=", "&", ";", "%70", "%", "+", "batch", "1", "ä", "[]", "%00"])
    ).map(lambda texts: "".join(texts).encode()),
    st.sampled_from([ENCODED, ENCODED + b"; charset=utf-8", ENCODED + b"; charset=latin-1"]),
)
def test_no_framework_reads_other_encoded_fields_than_the_guard(body, kind):
    agrees(body, kind)


@pytest.mark.parametrize("content", [b"a", b"\r", b"\n", b"\r\n-", b"\r\n--xY"], ids=repr)
def test_a_file_is_passed_over_whatever_is_in_it(content):
    short, long = (form_of(part(FILE, content * count)) for count in (1_000, 500_000))

    assert calls_of(lambda: read_form(long, TYPE)) == calls_of(lambda: read_form(short, TYPE))


def test_many_parts_and_fields_are_refused_before_they_are_read():
    many = form_of(*[part(b'Content-Disposition: form-data; name="f%d"' % n) for n in range(1001)])
    for body, kind in ((many, TYPE), (b"a&" * 500_000, ENCODED), (b"%41" * 400_000, ENCODED)):

        def refused(body=body, kind=kind):
            with pytest.raises(UnreadableError):
                read_form(body, kind)

        assert calls_of(refused) < 50


def test_files_of_one_name_are_joined_once():
    body = form_of(*[part(FILE, b"x" * 100) for _ in range(500)])

    assert len(read_form(body, TYPE).files["file"]) == 500 * 101 - 1
