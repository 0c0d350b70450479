"""Makes the example documents beside it, byte for byte the same each time: `python make.py`.

All people, companies and numbers are invented; card numbers are the card networks' published test numbers.
"""

import io
import struct
import textwrap
import zipfile
import zlib
from pathlib import Path

HERE = Path(__file__).parent
PAGE_LINES = 46

REPORT = """\
Northwind Paper: report on the third quarter

This report describes how the paper mill did in the third quarter. It names no person.

Production went up by four percent, since the second machine runs again after its overhaul. Energy per tonne
fell by two percent. Three deliveries of pulp were late because the canal was closed for nine days.

Internal control over financial reporting was assessed by management and found effective. No changes were made
to it in the quarter. The auditors have reviewed the figures of this report.
""", """\
Outlook

For the fourth quarter we expect production to stay at this level. The new warehouse opens in winter. Prices of
pulp are expected to fall a little, and prices of energy to stay as they are.

The next report will be published in February.
"""  # fmt: skip

CUSTOMERS = [
    "Customer export, made for the call centre",
    "Confidential. Contains contact, identity and payment data of natural persons.",
    "Name: Margaret Holloway, date of birth: 14/03/1971, email: margaret.holloway@example.com, phone: +1 212-736-5000",
    "Social security number (SSN): 536-90-4399. Credit card: 4111 1111 1111 1111, expires 09/28, CVV: 123",
    "Name: Piotr Kowalczyk, date of birth: 02/11/1985, email: piotr.kowalczyk@example.com, phone: +44 20 7946 0958",
    "Bank account (IBAN): DE89 3704 0044 0532 0130 00. Credit card: 5555 5555 5555 4444, expires 01/29, CVV: 987",
    "Name: Amélie Laurent, date of birth: 30/06/1990, email: amelie.laurent@example.org, phone: +33 1 42 68 53 00",
    "Credit card: 3782 822463 10005, expires 11/27. Bank account (IBAN): GB29 NWBK 6016 1331 9268 19",
    "Last seen from IP address 203.0.113.77. Sales tax and revenue recognition of these orders are not yet approved.",
    "The adjusting entry of March was backdated to the second quarter at the request of sales.",
]

PATIENT = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Intake form, Riverside Clinic</title>
<meta name="author" content="Riverside Clinic">
</head>
<body>
<h1>Intake form</h1>
<p>Patient: Mr. Samuel Okafor, date of birth: 05/19/1962, medical record number: MRN 00482913.</p>
<p>Contact: samuel.okafor@example.net, phone +1 415-555-2671.</p>
<h2>Findings</h2>
<table>
<tr><th>Diagnosis</th><td>Type 2 diabetes, ICD-10 E11.9</td></tr>
<tr><th>Medication</th><td>Metformin, 500 mg twice a day</td></tr>
</table>
<p>Health insurance member id: XJ4829104.</p>
</body>
</html>
"""

NOTES = """\
Notes of the planning meeting

Present: the whole team.

1. The new warehouse opens in December. Shelves are ordered.
2. Forklift training takes place on the second Tuesday of the month.
3. Questions about the schedule go to planning@example.com.

Next meeting in two weeks, same room.
"""

CONTRACT = [f"{n}. The parties agree on clause number {n}, which is as long as clauses usually are, and as dull." for n in range(1, 120)]


def pdf(pages: list[str], *, title: str, size: int | None = None) -> bytes:
    """A PDF with one page for each text; of exactly `size` bytes, if that is given.

    Raises ValueError if it cannot be that small.
    """
    kids = " ".join(f"{6 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        f"<< /Title ({_escaped(title)}) /Author (Northwind Paper) /CreationDate (D:20260105090000Z) >>".encode("cp1252"),
        b"<< /Type /Outlines /Count 0 >>",
    ]
    for number, text in enumerate(pages):
        lines = [wrapped for line in text.splitlines() for wrapped in textwrap.wrap(line, 90) or [""]]
        shown = "BT /F1 11 Tf 15 TL 60 760 Td\n" + "\n".join(f"({_escaped(line)}) Tj T*" for line in lines[:PAGE_LINES]) + "\nET"
        content = shown.encode("cp1252")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> /Contents {7 + 2 * number} 0 R >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    padding = 0
    while True:
        document = _assembled(objects, padding)
        if size is None or len(document) == size:
            return document
        padding += size - len(document)
        if padding < 2:
            raise ValueError(f"such a PDF has at least {len(document) + 2} bytes")


def _assembled(objects: list[bytes], padding: int) -> bytes:
    out, offsets = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    if padding:
        out += b"%" + b"." * (padding - 2) + b"\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info 4 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def docx(paragraphs: list[str], *, title: str) -> bytes:
    """The least that word processors open."""
    package = "http://schemas.openxmlformats.org/package/2006"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    word = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    main = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = "".join(f'<w:p><w:r><w:t xml:space="preserve">{_xml(text)}</w:t></w:r></w:p>' for text in paragraphs)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{word}"/>'
        '<Override PartName="/docProps/core.xml" ContentType="application/vnd.openxmlformats-package.core-properties+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/officeDocument" Target="word/document.xml"/>'
        f'<Relationship Id="r2" Type="{package}/relationships/metadata/core-properties" Target="docProps/core.xml"/></Relationships>',
        "docProps/core.xml": f'<cp:coreProperties xmlns:cp="{package}/metadata/core-properties" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>{_xml(title)}</dc:title><dc:creator>Northwind Paper</dc:creator></cp:coreProperties>",
        "word/document.xml": f'<w:document xmlns:w="{main}"><w:body>{body}</w:body></w:document>',
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in parts.items():
            # Stored, not deflated: the output must not depend on the version of zlib.
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 5, 9, 0, 0)), f'<?xml version="1.0" encoding="UTF-8"?>{content}')
    return out.getvalue()


def _xml(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def png(width: int = 64, height: int = 64) -> bytes:
    """A plain grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    # Stored blocks, for the same reason as in docx().
    pixels = zlib.compress(b"".join(b"\0" + b"\xb4" * width for _ in range(height)), 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def sample(size: int = 1_024_000) -> bytes:
    """The original system's `sample.pdf`: a valid PDF of twelve pages and exactly `size` bytes."""
    pages = [f"Sample document, page {number} of 12\n\n" + "\n".join([REPORT[number % 2]] * 2) for number in range(1, 13)]
    return pdf(pages, title="Sample document", size=size)


def documents() -> dict[str, bytes]:
    """File name → content of all that is committed."""
    contract = docx(CONTRACT, title="Frame contract")
    return {
        "quarterly-report.pdf": pdf(list(REPORT), title="Report on the third quarter"),
        "customer-export.docx": docx(CUSTOMERS, title="Customer export"),
        "patient-intake.html": PATIENT.encode(),
        "meeting-notes.txt": NOTES.encode(),
        "invoice.pdf": png(),  # not what it says
        "contract.docx": contract[: len(contract) * 2 // 3],  # a cut-off upload
    }


if __name__ == "__main__":
    for name, content in documents().items():
        (HERE / name).write_bytes(content)
        print(f"{len(content):8,}  {name}")
