"""Generators of documents that are made to hurt: zip and PDF bombs, locked and cut-off files, deep nests, requests for the network."""

import io
import random
import struct
import zipfile
import zlib

MIB = 1 << 20
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ODT = "application/vnd.oasis.opendocument.text"
ODS = "application/vnd.oasis.opendocument.spreadsheet"
EPUB = "application/epub+zip"
PASSWORD = "a password that nobody knows"
REMOTE = "http://127.0.0.1:{port}"
"""What external references name: a listener of the test's own, which must never be dialled."""
LAUGHS = "lol" * 10
GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
HTML_HEAD = b"<!doctype html>"
MAIL_IN_MAIL = b"Content-Type: message/rfc822\r\n\r\n"
SECRET_FILE = "/etc/passwd"


# --- zip ---


def deflated_zeros(mib: int, fill: bytes = b" ") -> tuple[bytes, int, int]:
    """A deflate stream of `mib` MiB of one byte, its CRC and its length, made from one compressed MiB that is repeated."""
    block = fill * MIB
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(mib):
        crc = zlib.crc32(block, crc)
    return piece * mib + packer.flush(), crc, mib * MIB


def zip_of_streams(entries: dict[str, tuple[bytes, int, int]], *, claimed: int | None = None, flags: int = 0) -> bytes:
    """A zip archive of deflate streams (as `deflated_zeros` gives them); `claimed`: the size that its headers tell instead."""
    body, directory = b"", b""
    for name, (stream, crc, size) in entries.items():
        head = struct.pack("<HHHHHIIIHH", 20, flags, 8, 0, 0x21, crc, len(stream), (size if claimed is None else claimed), len(name), 0)
        directory += b"PK\x01\x02\x14\x00" + head + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name.encode()
        body += b"PK\x03\x04" + head + name.encode() + stream
    return body + directory + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(entries), len(entries), len(directory), len(body), 0)


def stream_of(text: bytes) -> tuple[bytes, int, int]:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(text) + packer.flush(), zlib.crc32(text), len(text)


def zipped(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


_TYPES = (
    b'<?xml version="1.0"?>'
    b'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    b'<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    b'<Override PartName="/word/document.xml"'
    b' ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
_RELATIONS = (
    b'<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    b'<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
    b"</Relationships>"
)
_WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx(
    body: str = "<w:p><w:r><w:t>An ordinary paragraph of text.</w:t></w:r></w:p>", *, prolog: str = "", more: dict[str, bytes] | None = None
) -> bytes:
    document = f'<?xml version="1.0"?>{prolog}<w:document {_WORD}><w:body>{body}</w:body></w:document>'.encode()
    return zipped({"[Content_Types].xml": _TYPES, "_rels/.rels": _RELATIONS, "word/document.xml": document, **(more or {})})


def container(parts: dict[str, tuple[bytes, int, int]], *, kind: str = "", claimed: int | None = None) -> bytes:
    """An Office container with these parts; of OpenDocument, if its type is given."""
    first = {"mimetype": stream_of(kind.encode())} if kind else {"[Content_Types].xml": stream_of(_TYPES), "_rels/.rels": stream_of(_RELATIONS)}
    return zip_of_streams(first | parts, claimed=claimed)


_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
_ODF = "urn:oasis:names:tc:opendocument:xmlns:"


def xlsx_of_one_text(text: str, cells: int) -> bytes:
    """A sheet of `cells` rows that all show the one shared text."""
    rows = "".join(f'<row r="{n}"><c r="A{n}" t="s"><v>0</v></c></row>' for n in range(1, cells + 1))
    parts = {
        "[Content_Types].xml": _TYPES.decode(),
        "_rels/.rels": _RELATIONS.decode().replace("word/document.xml", "xl/workbook.xml"),
        "xl/workbook.xml": f'<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><sheets><sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}"><Relationship Id="r1" Type="{_OFFICE}/worksheet"'
        f' Target="worksheets/sheet1.xml"/><Relationship Id="r2" Type="{_OFFICE}/sharedStrings" Target="sharedStrings.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{_SHEET}"><sheetData>{rows}</sheetData></worksheet>',
        "xl/sharedStrings.xml": f'<sst xmlns="{_SHEET}"><si><t>{text}</t></si></sst>',
    }
    return zipped({name: part.encode() for name, part in parts.items()})


def _odf_manifest(inside: str = "") -> bytes:
    entry = f'<m:file-entry m:full-path="content.xml" m:media-type="text/xml">{inside}</m:file-entry>'
    return f'<m:manifest xmlns:m="{_ODF}manifest:1.0">{entry}</m:manifest>'.encode()


def ods_of_repeated_cells() -> bytes:
    """A sheet whose one cell is repeated over 2²⁰ rows and 2¹⁴ columns."""
    names = " ".join(f'xmlns:{name}="{_ODF}{name}:1.0"' for name in ("office", "table", "text"))
    content = (
        f'<office:document-content {names}><office:body><office:spreadsheet><table:table table:name="S">'
        '<table:table-row table:number-rows-repeated="1048576"><table:table-cell table:number-columns-repeated="16384" office:value-type="string">'
        "<text:p>hello</text:p></table:table-cell></table:table-row></table:table></office:spreadsheet></office:body></office:document-content>"
    ).encode()
    return container({"META-INF/manifest.xml": stream_of(_odf_manifest()), "content.xml": stream_of(content)}, kind=ODS)


def encrypted_odt() -> bytes:
    """As OpenDocument does it: the zip knows nothing of it, and the manifest tells which parts are encrypted."""
    manifest = _odf_manifest('<m:encryption-data m:checksum="x"><m:algorithm m:algorithm-name="x"/></m:encryption-data>')
    return container({"META-INF/manifest.xml": stream_of(manifest), "content.xml": stream_of(random_bytes(1)[:5000])}, kind=ODT)


def encrypted_epub() -> bytes:
    encryption = b'<encryption><EncryptedData><CipherData><CipherReference URI="OEBPS/1.xhtml"/></CipherData></EncryptedData></encryption>'
    return container({"META-INF/encryption.xml": stream_of(encryption), "OEBPS/1.xhtml": stream_of(random_bytes(1)[:5000])}, kind=EPUB)


def docx_bomb(mib: int, *, claimed: int | None = None) -> bytes:
    return container({"word/document.xml": deflated_zeros(mib)}, claimed=claimed)


def deep_docx(depth: int) -> bytes:
    return docx(deep("<w:tbl><w:tr><w:tc>", "</w:tc></w:tr></w:tbl>", depth, "<w:p><w:r><w:t>x</w:t></w:r></w:p>").decode())


def laughing_docx() -> bytes:
    doctype = laughs().decode().partition("?>")[2].partition("<r>")[0]
    return docx("<w:p><w:r><w:t>&l9;</w:t></w:r></w:p>", prolog=doctype)


def encrypted_docx() -> bytes:
    from msoffcrypto.format.ooxml import OOXMLFile

    out = io.BytesIO()
    OOXMLFile(io.BytesIO(docx())).encrypt(PASSWORD, out)
    return out.getvalue()


def encrypted_zip() -> bytes:
    import pyzipper

    out = io.BytesIO()
    with pyzipper.AESZipFile(out, "w", encryption=pyzipper.WZ_AES) as archive:
        archive.setpassword(PASSWORD.encode())
        archive.writestr("secret.txt", b"secret")
    return out.getvalue()


def docx_of_encrypted_parts() -> bytes:
    """A DOCX whose parts are marked as encrypted in the zip itself, as archivers do it."""
    parts = {"[Content_Types].xml": stream_of(_TYPES), "_rels/.rels": stream_of(_RELATIONS), "word/document.xml": stream_of(bytes(512))}
    return zip_of_streams(parts, flags=1)


def nested(depth: int) -> bytes:
    content = b"the end"
    for level in range(depth):
        content = zipped({f"{level}.zip": content})
    return content


# --- PDF ---


def pdf(objects: list[bytes]) -> bytes:
    """A PDF of these objects, numbered from 1; the first is the catalog."""
    out, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    at = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return bytes(out + b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, at))


def pdf_pages(count: int, contents: bytes | None = None) -> bytes:
    """`count` pages that share one content stream (uncompressed unless it is given with its own dictionary)."""
    stream = contents or b"<</Length 38>>stream\nBT /F1 12 Tf 72 720 Td (A page) Tj ET  \nendstream"
    kids = b" ".join(b"%d 0 R" % number for number in range(5, 5 + count))
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 3 0 R>>>>>>"
    return pdf(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Count %d/Kids[%s]>>" % (count, kids),
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
            stream,
            *[page] * count,
        ]
    )


def pdf_bomb(mib: int) -> bytes:
    """One page whose content inflates to `mib` MiB, through two filters."""
    raw, _, _ = deflated_zeros(mib)
    block = b" " * MIB
    adler = 1
    for _ in range(mib):
        adler = zlib.adler32(block, adler)
    once = b"\x78\xda" + raw + struct.pack(">I", adler)
    twice = zlib.compress(once, 9)
    stream = b"<</Filter[/FlateDecode/FlateDecode]/Length %d>>stream\n" % len(twice) + twice + b"\nendstream"
    return pdf_pages(1, stream)


def pdf_of_much_text(mib: int) -> bytes:
    """One page that really draws `mib` MiB of text operators, compressed to a thousandth."""
    text = b"BT /F1 12 Tf 72 720 Td " + b"(word ) Tj " * (mib * MIB // 11) + b"ET"
    packed = zlib.compress(text, 9)
    return pdf_pages(1, b"<</Filter/FlateDecode/Length %d>>stream\n" % len(packed) + packed + b"\nendstream")


def pdf_in_circles() -> bytes:
    return pdf(
        [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 1000000000/Kids[3 0 R]>>", b"<</Type/Pages/Count 1/Kids[2 0 R]/Parent 2 0 R>>"]
    )


def encrypted_pdf(*, user: str = PASSWORD) -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_pages(1))))
    writer.encrypt(user, PASSWORD, algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


# --- text and XML ---


def deep(opening: str, closing: str, depth: int, inside: str = "x") -> bytes:
    return (opening * depth + inside + closing * depth).encode()


def laughs() -> bytes:
    """Nine levels of ten references each: three gigabytes, if somebody laughs."""
    entities = f'<!ENTITY l0 "{LAUGHS}">' + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return f'<?xml version="1.0"?><!DOCTYPE r [{entities}]><r>&l9;</r>'.encode()


def yaml_laughs() -> bytes:
    levels = "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    return f"a0: &a0 [x]\n{levels}".encode()


def slow_html(count: int) -> bytes:
    """One tag whose attributes are such that the parser's search for its end takes a minute for 600 kilobytes, and four for twice as many."""
    return HTML_HEAD + b"<a " + b"=/ <a " * count + b">"


def html_with_image(data: bytes) -> bytes:
    return HTML_HEAD + b"<img src='data:image/png;base64," + data + b"'>text"


def external(port: int) -> dict[str, tuple[str, str, bytes]]:
    """Documents that ask their reader to fetch something, each as filename, media type and bytes."""
    remote = REMOTE.format(port=port)
    doctype = f'<!DOCTYPE r [<!ENTITY f SYSTEM "file://{SECRET_FILE}"><!ENTITY h SYSTEM "{remote}/entity"><!ENTITY % p SYSTEM "{remote}/dtd">%p;]>'
    relations = (
        '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/image" '
        f'Target="{remote}/image.png" TargetMode="External"/><Relationship Id="r2" '
        'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/attachedTemplate" '
        f'Target="{remote}/template.dotm" TargetMode="External"/></Relationships>'
    ).encode()
    paragraph = "<w:p><w:r><w:t>before &f; &h; after</w:t></w:r></w:p>"
    page = (
        f'<!doctype html><html><head><link rel="stylesheet" href="{remote}/s.css"><script src="{remote}/s.js"></script></head><body>text'
        f'<img src="{remote}/i.png"><iframe src="file://{SECRET_FILE}"></iframe></body></html>'
    )
    action = pdf(
        [
            f"<</Type/Catalog/Pages 2 0 R/OpenAction<</S/URI/URI({remote}/open)>>>>".encode(),
            b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<<>>/Contents 4 0 R>>",
            f"<</Length 0/F<</FS/URL/F({remote}/stream)>>>>stream\n\nendstream".encode(),
        ]
    )
    mail = f'From: a@example.com\r\nTo: b@example.com\r\nSubject: s\r\nContent-Type: text/html\r\n\r\n<img src="{remote}/mail.png">text\r\n'
    return {
        "xml": ("x.xml", "application/xml", f'<?xml version="1.0"?>{doctype}<r>before &f; &h; after</r>'.encode()),
        "svg": (
            "x.svg",
            "image/svg+xml",
            f'<?xml version="1.0"?>{doctype}<svg xmlns="http://www.w3.org/2000/svg"><image href="{remote}/i.png"/><g>text &f;</g></svg>'.encode(),
        ),
        "docx entities": ("x.docx", DOCX, docx(paragraph, prolog=doctype)),
        "docx relations": ("y.docx", DOCX, docx(more={"word/_rels/document.xml.rels": relations})),
        "html": ("x.html", "text/html", page.encode()),
        "pdf": ("x.pdf", "application/pdf", action),
        "markdown": ("x.md", "text/markdown", f"![image]({remote}/i.png) text".encode()),
        "mail": ("x.eml", "message/rfc822", mail.encode()),
        "rtf": ("x.rtf", "application/rtf", ('{\\rtf1 text {\\field{\\*\\fldinst INCLUDEPICTURE "' + remote + '/i.png"}}}').encode()),
    }


# --- polyglots ---


def pdf_and_zip() -> bytes:
    """A PDF to who reads from the beginning, a zip archive to who reads from the end."""
    return pdf_pages(1) + zipped({"payload.txt": b"payload"})


def random_bytes(mib: int) -> bytes:
    return random.Random(1).randbytes(mib * MIB)


def image_bomb() -> bytes:
    """A PNG of 50,000 by 50,000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
